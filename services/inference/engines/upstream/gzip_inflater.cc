#include "services/inference/engines/upstream/gzip_inflater.h"

#include <zlib.h>

#include <array>

namespace runnel::inference {
namespace {

// Adds the gzip header and trailer to zlib's largest window.
constexpr int kGzipWindowBits = 16 + MAX_WBITS;

}  // namespace

struct GzipInflater::Impl {
  z_stream stream = {};
  bool usable = false;
  bool complete = false;
  std::array<char, 16 << 10> out;
};

GzipInflater::GzipInflater() : impl_(std::make_unique<Impl>()) {
  impl_->usable = inflateInit2(&impl_->stream, kGzipWindowBits) == Z_OK;
}

GzipInflater::~GzipInflater() {
  if (impl_->usable) inflateEnd(&impl_->stream);
}

bool GzipInflater::complete() const { return impl_->complete; }

GzipInflater::Result GzipInflater::Feed(std::string_view bytes, absl::FunctionRef<bool(std::string_view)> on_bytes) {
  z_stream& stream = impl_->stream;
  if (!impl_->usable) return Result::kCorrupt;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  do {
    if (impl_->complete) return stream.avail_in == 0 ? Result::kOk : Result::kCorrupt;
    stream.next_out = reinterpret_cast<Bytef*>(impl_->out.data());
    stream.avail_out = static_cast<uInt>(impl_->out.size());
    const int result = inflate(&stream, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) return Result::kCorrupt;
    impl_->complete = result == Z_STREAM_END;
    const size_t size = impl_->out.size() - stream.avail_out;
    if (size > 0 && !on_bytes({impl_->out.data(), size})) return Result::kUnwanted;
    if (size == 0 && !impl_->complete) return Result::kOk;  // needs more input
  } while (stream.avail_in > 0 || stream.avail_out == 0);
  return Result::kOk;
}

}  // namespace runnel::inference
