#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

namespace runnel::bridge {

// The memory that one process may spend on requests and messages that are not complete yet. A client can make it hold
// such bytes without a key, and a limit per connection alone, times the connections, would exceed the machine's memory.
// Thread-safe; must outlive its reservations.
class ByteBudget {
 public:
  explicit ByteBudget(size_t limit) : limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  // The bytes of one request or message. Returns them when it is destroyed. Confined to the thread of its owner.
  class Reservation {
   public:
    // Has no budget: may only be assigned to.
    Reservation() = default;
    explicit Reservation(ByteBudget* budget) : budget_(budget) {}
    Reservation(Reservation&& other) noexcept : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() { Release(); }

    // Sets the total to `bytes`. False, with nothing changed, if the budget lacks the difference: the owner must give
    // up the request. Shrinking always succeeds.
    [[nodiscard]] bool Resize(size_t bytes) {
      if (bytes > bytes_ && !budget_->Take(bytes - bytes_)) return false;
      if (bytes < bytes_) budget_->Return(bytes_ - bytes);
      bytes_ = bytes;
      return true;
    }
    [[nodiscard]] bool Grow(size_t bytes) { return Resize(bytes_ + bytes); }
    void Release() {
      if (bytes_ > 0) budget_->Return(std::exchange(bytes_, 0));
    }
    size_t bytes() const { return bytes_; }

   private:
    ByteBudget* budget_ = nullptr;
    size_t bytes_ = 0;
  };

  size_t used() const { return used_.load(std::memory_order_relaxed); }
  size_t limit() const { return limit_; }

 private:
  bool Take(size_t bytes) {
    const size_t before = used_.fetch_add(bytes, std::memory_order_relaxed);
    if (before <= limit_ && bytes <= limit_ - before) return true;
    Return(bytes);
    return false;
  }
  void Return(size_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  const size_t limit_;
  std::atomic<size_t> used_ = 0;
};

}  // namespace runnel::bridge
