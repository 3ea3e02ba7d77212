#include "services/inference/generation/choice_parts.h"

#include <zlib.h>

#include <algorithm>

#include "services/base/request_limits.h"

namespace runnel::inference {
namespace {

// About what a part takes in a snapshot in addition to its content.
constexpr size_t kPartOverheadBytes = 16;

uint32_t ExtendCrc32(uint32_t crc, std::string_view text) {
  return static_cast<uint32_t>(
      crc32_z(crc, reinterpret_cast<const Bytef*>(text.data()), static_cast<z_size_t>(text.size())));
}

}  // namespace

ChoiceParts::Place ChoiceParts::Append(const PartPiece& piece, uint64_t delta) {
  const uint32_t index = PartOf(piece, delta);
  if (index == kNoPart) return {kNoPart, 0};
  last_appended_ = index;
  Part& part = parts_[index];
  part.last_delta = delta;
  part.content.append(piece.content);
  part.crc32 = ExtendCrc32(part.crc32, piece.content);
  if (part.call != nullptr) part.call->arguments.Add(piece.content);
  return {index, part.content.size()};
}

uint32_t ChoiceParts::PartOf(const PartPiece& piece, uint64_t delta) {
  if (piece.kind == PartKind::kToolCall) {
    if (piece.opening == nullptr) return piece.call < calls_.size() ? calls_[piece.call] : kNoPart;
    return piece.call == calls_.size() ? Open(piece, delta) : kNoPart;
  }
  if (last_appended_ != kNoPart && parts_[last_appended_].kind == piece.kind) return last_appended_;
  return Open(piece, delta);
}

uint32_t ChoiceParts::Open(const PartPiece& piece, uint64_t delta) {
  const bool is_call = piece.kind == PartKind::kToolCall;
  if (parts_.size() == base::kMaxParts || (is_call && calls_.size() == base::kMaxToolCalls)) return kNoPart;
  const auto index = static_cast<uint32_t>(parts_.size());
  Part& part = parts_.emplace_back();
  part.kind = piece.kind;
  part.first_delta = delta;
  if (is_call) {
    part.call = std::make_unique<Call>();
    part.call->opening = std::make_shared<const ToolCall>(*piece.opening);
    calls_.push_back(index);
  }
  return index;
}

std::shared_ptr<const ToolCall> ChoiceParts::OpenedCall(uint32_t part, uint64_t delta) const {
  const Part& of = parts_[part];
  return of.call != nullptr && of.first_delta == delta ? of.call->opening : nullptr;
}

bool ChoiceParts::IsComplete(const Part& part, FinishReason reason) {
  if (part.call == nullptr) return false;
  const bool ended = reason == FinishReason::kStop || reason == FinishReason::kToolCalls;
  if (part.call->arguments.complete()) return ended || reason == FinishReason::kLength;
  return part.content.empty() && ended;
}

FinishReason ChoiceParts::Settle(FinishReason reason) const {
  if (reason != FinishReason::kStop && reason != FinishReason::kToolCalls) return reason;
  if (calls_.empty()) return FinishReason::kStop;
  for (const uint32_t call : calls_) {
    if (!IsComplete(parts_[call], reason)) return FinishReason::kLength;
  }
  return reason;
}

void ChoiceParts::FillEnd(FinishReason reason, ChoiceEnd* end) const {
  end->finish_reason = reason;
  const bool with_parts = !IsPlain(parts_.size());
  for (uint32_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    if (part.kind == PartKind::kText) {
      end->text_bytes += part.content.size();
      end->text_crc32 =
          static_cast<uint32_t>(crc32_combine(end->text_crc32, part.crc32, static_cast<z_off_t>(part.content.size())));
    }
    if (with_parts) {
      end->parts.push_back({i, part.kind, part.content.size(), part.crc32, CallOf(part), IsComplete(part, reason)});
    }
  }
}

void ChoiceParts::FillText(ChoiceText* text, bool with_content, const Lengths* lengths) const {
  const size_t count = lengths == nullptr ? parts_.size() : lengths->size();
  const bool with_parts = !IsPlain(count);
  for (uint32_t i = 0; i < count; ++i) {
    const Part& part = parts_[i];
    const auto content = std::string_view(part.content).substr(0, with_content ? LengthOf(i, lengths) : 0);
    if (part.kind == PartKind::kText) text->text += content;
    if (with_parts) text->parts.push_back({i, part.kind, CallOf(part), std::string(content)});
  }
}

size_t ChoiceParts::SnapshotBytes(const Lengths* lengths) const {
  const size_t count = lengths == nullptr ? parts_.size() : lengths->size();
  const bool with_parts = !IsPlain(count);
  size_t bytes = 0;
  for (size_t i = 0; i < count; ++i) {
    const Part& part = parts_[i];
    if (part.kind == PartKind::kText) bytes += LengthOf(i, lengths);
    if (!with_parts) continue;
    bytes += LengthOf(i, lengths) + kPartOverheadBytes;
    if (part.call != nullptr) bytes += part.call->opening->id.size() + part.call->opening->name.size();
  }
  return bytes;
}

ChoiceParts::Lengths ChoiceParts::LengthsOfOpened(uint64_t deltas) const {
  Lengths lengths;
  for (const Part& part : parts_) {
    if (part.first_delta >= deltas) break;  // parts open in the order of their index
    lengths.push_back(part.content.size());
  }
  return lengths;
}

uint32_t ChoiceParts::CallNumber(uint32_t part) const {
  return static_cast<uint32_t>(std::lower_bound(calls_.begin(), calls_.end(), part) - calls_.begin());
}

std::vector<OpenedPart> ChoiceParts::Opened(uint64_t deltas, std::vector<uint32_t>* unfinished) const {
  std::vector<OpenedPart> opened;
  // Parts open in the order of their index.
  for (uint32_t i = 0; i < parts_.size() && parts_[i].first_delta < deltas; ++i) {
    const Part& part = parts_[i];
    opened.push_back({0, i, part.kind, CallOf(part), part.content.size()});
    if (part.last_delta >= deltas) unfinished->push_back(i);
  }
  if (opened.size() == 1 && opened[0].kind == PartKind::kText) {
    opened.clear();
    unfinished->clear();
  }
  return opened;
}

size_t ChoiceParts::bytes() const {
  size_t bytes = (parts_.size() > 1 ? parts_.capacity() * sizeof(Part) : 0) + calls_.capacity() * sizeof(uint32_t);
  for (const Part& part : parts_) {
    bytes += part.content.capacity();
    if (part.call == nullptr) continue;
    bytes += sizeof(Call) + sizeof(ToolCall) + part.call->opening->id.capacity() + part.call->opening->name.capacity();
  }
  return bytes;
}

}  // namespace runnel::inference
