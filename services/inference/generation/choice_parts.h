#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/json_object_checker.h"
#include "services/inference/generation/part_piece.h"

namespace runnel::inference {

// The output of one choice of an EventLog: its parts, each with its content joined. Not thread-safe.
class ChoiceParts {
 public:
  // Where a piece was appended.
  struct Place {
    uint32_t part = 0;
    uint64_t end = 0;  // of the piece in the part's content
  };
  // The place of a piece that was not appended: the choice has as many parts or calls as it may have, or the piece
  // names a call that was not opened.
  static constexpr uint32_t kNoPart = UINT32_MAX;

  // `delta`: the number of the log's delta that the piece becomes.
  Place Append(const PartPiece& piece, uint64_t delta);

  std::string_view content(uint32_t part) const { return parts_[part].content; }
  PartKind kind(uint32_t part) const { return parts_[part].kind; }
  // The id and name if delta number `delta` opens the part and the part is a tool call, else null.
  std::shared_ptr<const ToolCall> OpenedCall(uint32_t part, uint64_t delta) const;

  // The reason with which the choice ends if its engine ends it with `reason`: see FinishReason in inference.proto. A
  // choice whose call is not complete never ends with kStop or kToolCalls.
  FinishReason Settle(FinishReason reason) const;

  // Sets everything but the index. `reason` is settled.
  void FillEnd(FinishReason reason, ChoiceEnd* end) const;
  // `lengths`: of the contents of the parts that readers may see, the others are left out; null: all.
  using Lengths = std::vector<uint64_t>;
  void FillText(ChoiceText* text, bool with_content, const Lengths* lengths = nullptr) const;
  // About what a snapshot takes.
  size_t SnapshotBytes(const Lengths* lengths = nullptr) const;
  // The lengths of the parts that the first `deltas` deltas of the log opened, with all of their content.
  Lengths LengthsOfOpened(uint64_t deltas) const;

  // The number of the tool call that is part number `part`, or that would be the next one.
  uint32_t CallNumber(uint32_t part) const;

  // The parts that the first `deltas` deltas of the log opened; none if these are a single text part. Their `bytes` are
  // those of the whole content. Sets `unfinished` to the parts that later deltas continue.
  std::vector<OpenedPart> Opened(uint64_t deltas, std::vector<uint32_t>* unfinished) const;

  // The approximate memory of the content.
  size_t bytes() const;

 private:
  struct Call {
    std::shared_ptr<const ToolCall> opening;
    JsonObjectChecker arguments;
  };
  struct Part {
    std::string content;
    uint64_t first_delta = 0;
    uint64_t last_delta = 0;
    uint32_t crc32 = 0;
    PartKind kind = PartKind::kText;
    std::unique_ptr<Call> call;  // of a tool call
  };

  // The part that the piece continues or opens, or kNoPart.
  uint32_t PartOf(const PartPiece& piece, uint64_t delta);
  uint32_t Open(const PartPiece& piece, uint64_t delta);
  // Whether the first `parts` parts are at most one, of text.
  bool IsPlain(size_t parts) const { return parts == 0 || (parts == 1 && parts_[0].kind == PartKind::kText); }
  static ToolCall CallOf(const Part& part) { return part.call == nullptr ? ToolCall{} : *part.call->opening; }
  static bool IsComplete(const Part& part, FinishReason reason);
  uint64_t LengthOf(size_t part, const Lengths* lengths) const {
    return lengths == nullptr ? parts_[part].content.size() : (*lengths)[part];
  }

  // A plain response has its only part here, where an append finds it without another cold line of memory.
  absl::InlinedVector<Part, 1> parts_;
  std::vector<uint32_t> calls_;       // the parts of the tool calls, by number
  uint32_t last_appended_ = kNoPart;  // the part of the last piece
};

}  // namespace runnel::inference
