// Accept and Content-Type: an accepted value is well-formed and bounded, and the decision does not depend on the rest.
#include <cstdint>
#include <string>
#include <string_view>

#include "bridges/wire/media_type.h"
#include "tests/fuzz/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using runnel::bridge::Acceptance;
  using runnel::bridge::MediaRange;
  const std::string_view field(reinterpret_cast<const char*>(data), size);
  const auto ranges = runnel::bridge::ParseMediaRanges(field);
  FUZZ_CHECK(ranges.size() <= 64);
  for (const MediaRange& range : ranges) {
    FUZZ_CHECK(!range.type.empty() && !range.subtype.empty());
    FUZZ_CHECK(range.quality >= 0 && range.quality <= 1000 && range.parameters.size() <= 16);
    for (const auto& [name, value] : range.parameters) FUZZ_CHECK(!name.empty() && name != "q");
  }
  const Acceptance acceptance = runnel::bridge::AcceptanceOf(field, "text", "event-stream");
  FUZZ_CHECK(acceptance.quality >= 0 && acceptance.quality <= 1000);
  if (runnel::bridge::PrefersEventStream(field)) FUZZ_CHECK(acceptance.quality > 0);
  if (runnel::bridge::IsJsonContentType(field))
    FUZZ_CHECK(ranges.size() == 1 && !runnel::bridge::PrefersEventStream(field));
  return 0;
}
