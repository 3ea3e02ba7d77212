#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace runnel::inference {

// The token ids of a log's deltas, packed: two or three bytes for each, and about one and a half for each delta. Not
// thread-safe.
class TokenIdStore {
 public:
  // Adds the ids of delta number `delta`. Numbers increase; a skipped delta has none.
  void Add(size_t delta, std::span<const uint32_t> ids);

  std::vector<uint32_t> Get(size_t delta) const;

  // The approximate memory of the store.
  size_t bytes() const { return sizeof(TokenIdStore) + packed_.capacity() + begins_.capacity() * sizeof(size_t); }

 private:
  // One begin for each `kStride` deltas is kept; what is between is skipped over.
  static constexpr size_t kStride = 16;

  void AddOne(std::span<const uint32_t> ids);

  std::string packed_;  // of each delta: the number of its ids, then the ids
  std::vector<size_t> begins_;
  size_t deltas_ = 0;
};

}  // namespace runnel::inference
