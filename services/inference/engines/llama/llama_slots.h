#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/inference/engines/llama/llama_decoder.h"

namespace runnel::inference {

// Assigns the decoder's sequences, and knows the tokens that each holds. A released slot keeps its tokens until it is
// needed: the next prompt with the same beginning, for example the next turn of a conversation, starts where the two
// differ. Prefixes are copied from running sequences too.
//
// A prefix is reused only for the principal that it belongs to, so that neither a token count nor a time reveals what
// others have asked. Preambles are the exception: they are shared by all principals. Not thread-safe.
class LlamaSlots {
 public:
  // `decoder` must outlive the slots. `preambles`: beginnings of prompts that are not secret.
  explicit LlamaSlots(LlamaDecoder* decoder, std::vector<std::vector<int32_t>> preambles = {})
      : decoder_(decoder), preambles_(std::move(preambles)), slots_(decoder->sequences()) {}

  // Takes a slot for a sequence of `principal` that begins with `tokens`, all but the last of which it may hold
  // already. Empty if all slots are taken.
  std::optional<uint32_t> Acquire(std::span<const int32_t> tokens, std::string_view principal);

  // The number of tokens in the slot.
  uint32_t Length(uint32_t slot) const { return static_cast<uint32_t>(slots_[slot].tokens.size()); }
  // The decoder has added a token.
  void Extend(uint32_t slot, int32_t token) { slots_[slot].tokens.push_back(token); }

  // Releases a slot and keeps its tokens for reuse.
  void Release(uint32_t slot);
  // Releases a slot and frees its cells.
  void Discard(uint32_t slot);
  // Frees the cells of the least recently used idle slot. False if no idle slot has any.
  bool EvictIdle();
  // To be called when the decoder was cleared: every slot is free and empty.
  void Reset();

  // The number of tokens in all slots; a shared prefix counts once for each.
  uint32_t held() const;

 private:
  struct Slot {
    std::vector<int32_t> tokens;
    std::string principal;  // the owner of the tokens
    bool taken = false;
    uint64_t released_at = 0;  // a value of releases_
  };

  void Empty(uint32_t slot);
  // The slot with the longest prefix of `tokens` that `principal` may use, and the length of that prefix.
  std::pair<uint32_t, uint32_t> FindPrefix(std::span<const int32_t> tokens, std::string_view principal) const;
  // The length of the longest prefix of `tokens` that is also one of a preamble.
  uint32_t PublicTokens(std::span<const int32_t> tokens) const;
  // The free slot that is the least worth keeping: preferably empty, then next to a taken one, then the oldest.
  std::optional<uint32_t> FindSpare() const;
  bool HasTakenNeighbour(uint32_t slot) const;

  LlamaDecoder* const decoder_;
  const std::vector<std::vector<int32_t>> preambles_;
  std::vector<Slot> slots_;
  uint64_t releases_ = 0;
};

}  // namespace runnel::inference
