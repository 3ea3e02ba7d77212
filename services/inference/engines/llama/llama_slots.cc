#include "services/inference/engines/llama/llama_slots.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace runnel::inference {

namespace {

// Copying a shorter prefix may take longer than decoding it: if each sequence has separate memory, all of it is copied.
constexpr uint32_t kMinCopied = 16;

uint32_t CommonTokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  return static_cast<uint32_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

}  // namespace

std::optional<uint32_t> LlamaSlots::Acquire(std::span<const int32_t> tokens, std::string_view principal) {
  const std::optional<uint32_t> spare = FindSpare();
  if (!spare.has_value()) return std::nullopt;
  const auto [source, common] = FindPrefix(tokens, principal);
  uint32_t slot = *spare;
  // To continue in the found slot drops the tokens after the prefix; to copy from it costs time and the spare slot. So
  // a conversation continues in place, and a slot of which only the preamble is common is kept.
  const bool in_place = !slots_[source].taken && (source == slot || common * 2 >= slots_[source].tokens.size());
  if (common > 0 && in_place) {
    slot = source;
    if (common < slots_[slot].tokens.size()) decoder_->Truncate(slot, common);
    slots_[slot].tokens.resize(common);
  } else {
    Empty(slot);
    if (common >= kMinCopied) {
      decoder_->CopyPrefix(source, slot, common);
      slots_[slot].tokens.assign(tokens.begin(), tokens.begin() + common);
    }
  }
  slots_[slot].principal = principal;
  slots_[slot].taken = true;
  return slot;
}

void LlamaSlots::Release(uint32_t slot) {
  slots_[slot].taken = false;
  slots_[slot].released_at = ++releases_;
}

void LlamaSlots::Discard(uint32_t slot) {
  Empty(slot);
  slots_[slot].taken = false;
}

bool LlamaSlots::EvictIdle() {
  std::optional<uint32_t> oldest;
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].taken || slots_[i].tokens.empty()) continue;
    if (!oldest.has_value() || slots_[i].released_at < slots_[*oldest].released_at) oldest = i;
  }
  if (oldest.has_value()) Empty(*oldest);
  return oldest.has_value();
}

void LlamaSlots::Reset() { std::fill(slots_.begin(), slots_.end(), Slot{}); }

uint32_t LlamaSlots::held() const {
  uint32_t held = 0;
  for (const Slot& slot : slots_) held += static_cast<uint32_t>(slot.tokens.size());
  return held;
}

void LlamaSlots::Empty(uint32_t slot) {
  if (!slots_[slot].tokens.empty()) decoder_->Truncate(slot, 0);
  slots_[slot].tokens.clear();
}

std::pair<uint32_t, uint32_t> LlamaSlots::FindPrefix(std::span<const int32_t> tokens,
                                                     std::string_view principal) const {
  std::pair<uint32_t, uint32_t> best{0, 0};
  if (!decoder_->shares_prefixes() || tokens.empty()) return best;
  // The last token has to be decoded in any case, because logits are not kept.
  tokens = tokens.first(tokens.size() - 1);
  const uint32_t shared = PublicTokens(tokens);
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    const uint32_t found = CommonTokens(tokens, slots_[i].tokens);
    const uint32_t common = slots_[i].principal == principal ? found : std::min(found, shared);
    if (common > best.second) best = {i, common};
  }
  return best;
}

uint32_t LlamaSlots::PublicTokens(std::span<const int32_t> tokens) const {
  uint32_t most = 0;
  for (const auto& preamble : preambles_) most = std::max(most, CommonTokens(tokens, preamble));
  return most;
}

std::optional<uint32_t> LlamaSlots::FindSpare() const {
  std::optional<uint32_t> best;
  const auto cost = [&](uint32_t slot) {
    return std::tuple(!slots_[slot].tokens.empty(), !HasTakenNeighbour(slot), slots_[slot].released_at);
  };
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].taken && (!best.has_value() || cost(i) < cost(*best))) best = i;
  }
  return best;
}

// Sequences with separate memory are computed together only if their numbers are consecutive: four that were not took
// 1.6 times as long as four that were (SmolLM2-135M, one thread).
bool LlamaSlots::HasTakenNeighbour(uint32_t slot) const {
  return (slot > 0 && slots_[slot - 1].taken) || (slot + 1 < slots_.size() && slots_[slot + 1].taken);
}

}  // namespace runnel::inference
