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

// Who has which of the decoder's sequences, and what each holds. A slot given back keeps its tokens until it is needed:
// the next prompt that begins like it, such as the next turn of a conversation, starts where the two part. Prefixes are
// taken from running sequences too.
//
// A prefix is reused only for the principal whose it is, so that neither a count nor a time says what others have
// asked. Preambles are the exception: everybody may have those from anybody. Not thread-safe.
class LlamaSlots {
 public:
  // `decoder` must outlive the slots. `preambles`: beginnings of prompts that are no secret.
  explicit LlamaSlots(LlamaDecoder* decoder, std::vector<std::vector<int32_t>> preambles = {})
      : decoder_(decoder), preambles_(std::move(preambles)), slots_(decoder->sequences()) {}

  // Takes a slot for a sequence of `principal` that begins with `tokens`, all but the last of which may be found there
  // already. None if all are taken.
  std::optional<uint32_t> Acquire(std::span<const int32_t> tokens, std::string_view principal);

  // What the slot holds, in tokens.
  uint32_t Length(uint32_t slot) const { return static_cast<uint32_t>(slots_[slot].tokens.size()); }
  // The decoder has added a token.
  void Extend(uint32_t slot, int32_t token) { slots_[slot].tokens.push_back(token); }

  // Gives a slot back, to be reused as it is.
  void Release(uint32_t slot);
  // Gives a slot back and frees its cells.
  void Discard(uint32_t slot);
  // Frees the cells of the idle slot that was used longest ago. False if no idle slot holds any.
  bool EvictIdle();
  // The decoder was cleared and every slot is free.
  void Reset();

  // Tokens held by all slots; a shared prefix counts for each that has it.
  uint32_t held() const;

 private:
  struct Slot {
    std::vector<int32_t> tokens;
    std::string principal;  // whose tokens they are
    bool taken = false;
    uint64_t released_at = 0;  // of a count that grows
  };

  void Empty(uint32_t slot);
  // The slot that has most of `tokens` in common with them, of those that `principal` may know, and how many.
  std::pair<uint32_t, uint32_t> FindPrefix(std::span<const int32_t> tokens, std::string_view principal) const;
  // How many of the first `tokens` a preamble has.
  uint32_t PublicTokens(std::span<const int32_t> tokens) const;
  // The slot not taken that is the least worth keeping; an empty one if there is, and best beside one that is taken.
  std::optional<uint32_t> FindSpare() const;
  bool HasTakenNeighbour(uint32_t slot) const;

  LlamaDecoder* const decoder_;
  const std::vector<std::vector<int32_t>> preambles_;
  std::vector<Slot> slots_;
  uint64_t releases_ = 0;
};

}  // namespace runnel::inference
