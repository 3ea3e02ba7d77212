#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "services/inference/generation/event.h"

namespace runnel::inference {

// The log-probabilities of a log's deltas, packed: about six bytes for each token in addition to its text, a tenth of
// what the structs take. Not thread-safe.
class LogprobStore {
 public:
  // Adds the log-probabilities of delta number `delta`. Numbers increase; a skipped delta has none.
  void Add(size_t delta, std::span<const TokenLogprob> logprobs);

  // Returns those of the deltas from `first` up to, but not including, `end`, joined.
  std::vector<TokenLogprob> Get(size_t first, size_t end) const;
  // About what the same take on the wire.
  size_t WireBytes(size_t first, size_t end) const;

  // The approximate memory of the store.
  size_t bytes() const;

 private:
  // The position in packed_ at which delta number `delta` begins.
  size_t BeginOf(size_t delta) const;

  std::string packed_;
  std::vector<size_t> ends_;  // of each delta, in packed_
};

// About what a delta's text, log-probabilities, id and name take on the wire.
size_t ContentBytes(const Delta& delta);

}  // namespace runnel::inference
