#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

// What a stream has sent of the output of its generation, as far as it takes to tell whether another output begins with
// it: OpenAI's clients cannot take back what they have received. 32 bytes for each part.
class SentOutput {
 public:
  // Counts a delta, which the stream sends. Each part must be counted from its beginning.
  void Add(const v1::Delta& delta);

  // What follows, as one delta for each part, if the output of a gap replaces what was sent; nullopt if that output
  // does not begin with it. Choices that the gap does not list count as unchanged. The snapshot has no
  // log-probabilities, so if the stream has any, only an output without a rest is accepted.
  std::optional<std::vector<v1::Delta>> RestOf(const v1::Gap& gap) const;

 private:
  struct Part {
    uint32_t choice = 0;
    uint32_t index = 0;
    v1::PartKind kind = v1::PART_KIND_TEXT;
    uint64_t bytes = 0;
    uint64_t hash = 0;  // of the call that it is, and of the content
  };

  // Returns its index in parts_, or parts_.size() if no such part was sent.
  size_t Find(uint32_t choice, uint32_t index) const;

  std::vector<Part> parts_;
  bool logprobs_ = false;
};

}  // namespace runnel::openai
