#include "services/inference/journal/record_id.h"

#include <charconv>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string RecordId::ToString() const { return absl::StrCat(epoch, "-", n); }

std::optional<RecordId> ParseRecordId(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  RecordId id;
  if (!ParseNumber(text.substr(0, dash), &id.epoch) || !ParseNumber(text.substr(dash + 1), &id.n)) return std::nullopt;
  return id;
}

std::optional<uint32_t> NextEpoch(uint32_t epoch, uint16_t random) {
  const uint32_t half = epoch >> 16;
  // The last one is of kDeletedEpoch.
  if (half >= UINT16_MAX - 1) return std::nullopt;
  return (half + 1) << 16 | random;
}

}  // namespace runnel::inference
