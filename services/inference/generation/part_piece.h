#pragma once

#include <cstdint>
#include <string_view>

#include "services/base/call_name.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

using base::IsValidCallName;

// A piece of one part of a choice, as an engine appends it: whole UTF-8 characters.
//
// Pieces of text, reasoning and refusals continue the last part of the choice if it is of their kind and was also
// appended to last; otherwise they open a new part. Tool calls are numbered from 0 within their choice, in the order in
// which they open. The first piece of a call opens it, and must have its id and name. Any later piece may continue it.
struct PartPiece {
  static PartPiece Text(std::string_view content) { return {PartKind::kText, content}; }
  static PartPiece Reasoning(std::string_view content) { return {PartKind::kReasoning, content}; }
  static PartPiece Refusal(std::string_view content) { return {PartKind::kRefusal, content}; }
  // `opening` must outlive the piece.
  static PartPiece OpenCall(uint32_t number, const ToolCall* opening, std::string_view arguments = {}) {
    return {PartKind::kToolCall, arguments, number, opening};
  }
  static PartPiece Arguments(uint32_t number, std::string_view arguments) {
    return {PartKind::kToolCall, arguments, number};
  }

  PartKind kind = PartKind::kText;
  std::string_view content;
  uint32_t call = 0;  // the number of a tool call
  const ToolCall* opening = nullptr;
};

}  // namespace runnel::inference
