// Cursors from clients: a cursor that is parsed and written again equals the input.
#include <cstdint>
#include <string>
#include <string_view>

#include "bridges/wire/cursor.h"
#include "tests/fuzz/fuzz_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using runnel::bridge::IsGenerationId;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto cursor = runnel::bridge::ParseCursor(text); cursor.ok()) {
    FUZZ_CHECK(cursor->generation_id.empty() || IsGenerationId(cursor->generation_id));
    const std::string prefix = cursor->generation_id.empty() ? "" : cursor->generation_id + ":";
    const std::string epoch = cursor->position.epoch == 0 ? "" : "." + std::to_string(cursor->position.epoch);
    FUZZ_CHECK(prefix + std::to_string(cursor->position.seq) + epoch == text);
    FUZZ_CHECK(runnel::bridge::ParseCursorOf("gen_aaaaaaaaaaaaaaaaaaaaaaaaaa", text).ok() ==
               (cursor->generation_id.empty() || cursor->generation_id == "gen_aaaaaaaaaaaaaaaaaaaaaaaaaa"));
  }
  if (const auto seq = runnel::bridge::ParseSeq(text); seq.ok()) FUZZ_CHECK(std::to_string(*seq) == text);
  return 0;
}
