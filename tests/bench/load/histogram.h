#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace runnel::bench {

// Counts microseconds with an error of 1.6 % in a fixed 15 KiB, so that a long run costs no more than a short one.
class Histogram {
 public:
  void Add(int64_t us) {
    const auto value = static_cast<uint64_t>(std::max<int64_t>(0, us));
    ++counts_[std::min(IndexOf(value), counts_.size() - 1)];
    ++count_;
    max_ = std::max(max_, value);
  }

  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }

  // The value below which the share `share` (0 to 1) of the values lies; 0 if there are no values.
  uint64_t Percentile(double share) const {
    if (count_ == 0) return 0;
    const auto rank = static_cast<uint64_t>(share * static_cast<double>(count_ - 1));
    uint64_t seen = 0;
    for (size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > rank) return std::min(ValueOf(i), max_);
    }
    return max_;
  }

 private:
  // Values below 64 have one bucket each; above, each power of two has 64 buckets.
  static constexpr unsigned kBits = 6;
  static constexpr size_t kBuckets = (40 - kBits) << kBits;

  static size_t IndexOf(uint64_t value) {
    const auto width = static_cast<unsigned>(std::bit_width(value));
    if (width <= kBits) return value;
    const unsigned shift = width - kBits - 1;
    return (static_cast<size_t>(shift) << kBits) + (value >> shift);
  }
  static uint64_t ValueOf(size_t index) {
    if (index < (size_t{2} << kBits)) return index;
    const size_t shift = (index >> kBits) - 1;
    return ((index & ((1u << kBits) - 1)) | (1u << kBits)) << shift;
  }

  std::vector<uint64_t> counts_ = std::vector<uint64_t>(kBuckets);
  uint64_t count_ = 0;
  uint64_t max_ = 0;
};

}  // namespace runnel::bench
