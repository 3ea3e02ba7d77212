#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// What one scripted token appends: see PartPiece.
struct ScriptedPiece {
  PartKind kind = PartKind::kText;
  std::string content;
  uint32_t call = 0;
  std::optional<ToolCall> opening;
};

// The parts of a scripted response, from the metadata key scripted.parts: items separated by commas or semicolons.
//
//   text:N, reasoning:N, refusal:N   N tokens of this kind, 1 to 1,000,000
//   call:NAME:N                      a call of the tool NAME, whose arguments are {"words":"..."} with N words; the
//                                    opening is one more token. Without N: 5 words. 0: no arguments
//   call:NAME+NAME:N                 several calls whose tokens take turns
//
// Each token depends on seed, choice and index only, so that a test knows every output in advance, and a response can
// be continued from any token.
class ScriptedParts {
 public:
  // InvalidArgument, with the metadata key as the field.
  static absl::StatusOr<ScriptedParts> Parse(std::string_view text);

  uint32_t tokens() const { return segments_.back().end; }
  bool has_calls() const { return has_calls_; }
  // `index` is below tokens(). `salt`: see ScriptedToken.
  ScriptedPiece At(uint64_t seed, uint32_t choice, uint32_t index, std::string_view salt = {}) const;

 private:
  struct Segment {
    PartKind kind = PartKind::kText;
    uint32_t begin = 0;  // the first token
    uint32_t end = 0;
    std::vector<std::string> names;  // of calls
    uint32_t first_call = 0;         // the number of the first of these
  };
  ScriptedParts() = default;

  std::vector<Segment> segments_;  // at least one
  bool has_calls_ = false;
};

}  // namespace runnel::inference
