#pragma once

#include <memory>
#include <vector>

namespace runnel::inference {

// Something that sends what is new, such as a Link. Flush may be called on any thread, at any time, also when there is
// nothing new or the connection has ended.
class Flushable {
 public:
  virtual ~Flushable() = default;
  virtual void Flush() = 0;
};

// The readers to wake once an engine's step is over. A Link that carries a thousand generations is woken once a step
// and not a thousand times: most of the cost of a token is in wake-ups. Not thread-safe: one lives on the stack of each
// step. The destructor flushes what is left.
class WakeSet {
 public:
  WakeSet() = default;
  WakeSet(const WakeSet&) = delete;
  WakeSet& operator=(const WakeSet&) = delete;
  ~WakeSet() { Flush(); }

  // A reader adds itself when it goes from having nothing new to having something.
  void Add(std::shared_ptr<Flushable> reader) { readers_.push_back(std::move(reader)); }

  // Must be called with no lock held.
  void Flush() {
    for (auto& reader : readers_) reader->Flush();
    readers_.clear();
  }

 private:
  std::vector<std::shared_ptr<Flushable>> readers_;
};

}  // namespace runnel::inference
