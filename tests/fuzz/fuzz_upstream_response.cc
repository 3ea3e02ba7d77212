// The bytes that an upstream sends: the parser of HTTP responses. The result must not depend on how they are split.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/inference/engines/upstream/response_parser.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using runnel::inference::UpstreamHead;
using runnel::inference::UpstreamResponseParser;

constexpr size_t kMaxBodyBytes = 1 << 20;

class Recorder final : public UpstreamResponseParser::Handler {
 public:
  bool OnHead(const UpstreamHead& head) override {
    FUZZ_CHECK(head.status >= 200 && head.status < 600 && !seen_);
    seen_ = true;
    return true;
  }
  bool OnBody(std::string_view bytes) override {
    FUZZ_CHECK(seen_);
    body.append(bytes);
    return body.size() <= kMaxBodyBytes;
  }
  std::string body;

 private:
  bool seen_ = false;
};

struct Outcome {
  UpstreamResponseParser::State state;
  int status;
  std::string body;
};

Outcome Parse(std::string_view bytes, size_t piece) {
  Recorder recorder;
  UpstreamResponseParser parser({}, &recorder);
  for (size_t at = 0; at < bytes.size(); at += piece) parser.Feed(bytes.substr(at, piece));
  parser.OnEof();
  FUZZ_CHECK(parser.state() != UpstreamResponseParser::State::kReading);
  return {parser.state(), parser.status(), recorder.body};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = Parse(bytes, size + 1);
  for (const size_t piece : {size_t{1}, size_t{3}}) {
    const Outcome split = Parse(bytes, piece);
    FUZZ_CHECK(split.state == whole.state && split.status == whole.status);
    // Decoded bytes of a corrupt gzip stream depend on the pieces.
    FUZZ_CHECK(whole.state != UpstreamResponseParser::State::kDone || split.body == whole.body);
  }
  return 0;
}
