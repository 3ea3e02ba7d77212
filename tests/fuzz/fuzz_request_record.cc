// The request of a generation as a store returns it. Random bytes never have the right check, so it is made right.
#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/inference/generation/request_record.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using runnel::inference::DecodeRequest;
using runnel::inference::EncodeRequest;

// What was decoded is encoded to a record that means the same.
void Check(std::string_view bytes) {
  const auto decoded = DecodeRequest(bytes);
  if (!decoded.ok()) return;
  FUZZ_CHECK(!decoded->model.empty() && decoded->choice_count > 0);
  const std::string encoded = EncodeRequest(*decoded);
  const auto again = DecodeRequest(encoded);
  FUZZ_CHECK(again.ok());
  FUZZ_CHECK(EncodeRequest(*again) == encoded);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  Check(bytes);
  const auto check = static_cast<uint32_t>(crc32_z(0, data, size));
  for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(check >> shift & 0xFF));
  Check(bytes);
  return 0;
}
