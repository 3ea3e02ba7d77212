#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

namespace runnel::bridge {

// What one process spends on requests and messages that are not complete yet. A client needs neither a key nor an
// answer to make it hold such bytes, and a limit for each connection alone, times the connections, would be more than
// the machine has. Thread-safe; must outlive its reservations.
class ByteBudget {
 public:
  explicit ByteBudget(size_t limit) : limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  // The bytes of one request or message. Returns them when it is destroyed. Confined to the thread of its owner.
  class Reservation {
   public:
    // Of nothing: the only way to use it is to assign another to it.
    Reservation() = default;
    explicit Reservation(ByteBudget* budget) : budget_(budget) {}
    Reservation(Reservation&& other) noexcept : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
    Reservation& operator=(Reservation&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Reservation() { Release(); }

    // Makes it `bytes` altogether. False, with nothing changed, if the budget does not have the difference: the owner
    // must give up the request. Less is always possible.
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
