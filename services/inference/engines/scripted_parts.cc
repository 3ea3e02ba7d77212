#include "services/inference/engines/scripted_parts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/grpc_status.h"
#include "services/base/strings.h"
#include "services/inference/engines/scripted_words.h"
#include "services/inference/generation/part_piece.h"

namespace runnel::inference {
namespace {

constexpr uint32_t kMaxTokens = 1'000'000;
constexpr uint32_t kWordsOfArguments = 5;

absl::Status Invalid(std::string_view item) {
  return base::InvalidField("metadata.scripted.parts",
                            absl::StrCat("cannot read the item '", base::ToAbsl(item),
                                         "': expected text:N, reasoning:N, refusal:N, call:NAME:N or "
                                         "call:NAME+NAME:N, with up to 1,000,000 tokens together"));
}

std::optional<PartKind> KindOf(std::string_view name) {
  if (name == "text") return PartKind::kText;
  if (name == "reasoning") return PartKind::kReasoning;
  if (name == "refusal") return PartKind::kRefusal;
  if (name == "call") return PartKind::kToolCall;
  return std::nullopt;
}

// The word of a token, with a blank before it unless it is the first of its part.
std::string WordAt(uint64_t seed, uint32_t choice, uint32_t index, bool first, std::string_view salt) {
  std::string word = ScriptedToken(seed, choice, index, salt);
  if (word.front() == ' ') word.erase(0, 1);
  return first ? word : absl::StrCat(" ", word);
}

}  // namespace

absl::StatusOr<ScriptedParts> ScriptedParts::Parse(std::string_view text) {
  ScriptedParts parts;
  uint32_t begin = 0;
  uint32_t calls = 0;
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(base::ToAbsl(text), absl::ByAnyChar(",;")))) {
    const std::vector<std::string> fields = absl::StrSplit(item, ':');
    const std::optional<PartKind> kind = KindOf(fields[0]);
    if (!kind.has_value()) return Invalid(item);
    Segment segment{*kind, begin, begin, {}, calls};
    uint32_t number = kWordsOfArguments;
    const bool is_call = kind == PartKind::kToolCall;
    const size_t number_field = is_call ? 2 : 1;
    if (fields.size() > number_field + 1 || fields.size() < 2) return Invalid(item);
    if (fields.size() > number_field && !absl::SimpleAtoi(fields[number_field], &number)) return Invalid(item);
    if (number > kMaxTokens || (!is_call && number == 0)) return Invalid(item);
    uint64_t tokens = number;
    if (is_call) {
      segment.names = absl::StrSplit(fields[1], '+');
      if (!std::all_of(segment.names.begin(), segment.names.end(), IsValidCallName)) return Invalid(item);
      tokens = segment.names.size() * (uint64_t{number} + 1);
      calls += static_cast<uint32_t>(segment.names.size());
      parts.has_calls_ = true;
    }
    if (begin + tokens > kMaxTokens) return Invalid(item);
    segment.end = begin = begin + static_cast<uint32_t>(tokens);
    parts.segments_.push_back(std::move(segment));
  }
  return parts;
}

ScriptedPiece ScriptedParts::At(uint64_t seed, uint32_t choice, uint32_t index, std::string_view salt) const {
  const auto segment = std::upper_bound(segments_.begin(), segments_.end(), index,
                                        [](uint32_t at, const Segment& each) { return at < each.end; });
  ScriptedPiece piece;
  piece.kind = segment->kind;
  const uint32_t offset = index - segment->begin;
  if (segment->kind != PartKind::kToolCall) {
    piece.content = WordAt(seed, choice, index, offset == 0, salt);
    return piece;
  }
  const auto calls = static_cast<uint32_t>(segment->names.size());
  const uint32_t step = offset / calls;
  piece.call = segment->first_call + offset % calls;
  if (step == 0) {
    piece.opening = {absl::StrCat("call_", absl::Hex(seed), "_", choice, "_", piece.call),
                     segment->names[offset % calls]};
    return piece;
  }
  const uint32_t words = (segment->end - segment->begin) / calls - 1;
  piece.content = absl::StrCat(step == 1 ? "{\"words\":\"" : "", WordAt(seed, choice, index, step == 1, salt),
                               step == words ? "\"}" : "");
  return piece;
}

}  // namespace runnel::inference
