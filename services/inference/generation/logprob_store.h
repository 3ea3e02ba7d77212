#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "services/inference/generation/event.h"

namespace runnel::inference {

// The log-probabilities of a log's deltas, packed: about six bytes and the token's own for each, where the structs take
// ten times as much. Not thread-safe.
class LogprobStore {
 public:
  // Those of delta number `delta`. Numbers grow; one left out has none.
  void Add(size_t delta, std::span<const TokenLogprob> logprobs);

  // Those of the deltas from `first` until before `end`, joined.
  std::vector<TokenLogprob> Get(size_t first, size_t end) const;
  // What the same take on the wire, about.
  size_t WireBytes(size_t first, size_t end) const;

  // What the store takes in memory, about.
  size_t bytes() const;

 private:
  // Where delta number `delta` begins in packed_.
  size_t BeginOf(size_t delta) const;

  std::string packed_;
  std::vector<size_t> ends_;  // of each delta, in packed_
};

// What a delta's text and log-probabilities take on the wire, about.
size_t ContentBytes(const Delta& delta);

}  // namespace runnel::inference
