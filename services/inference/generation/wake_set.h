#pragma once

#include <memory>
#include <vector>

namespace runnel::inference {

// Sends new events to a client, for example a Link. Flush may be called on any thread and at any time, even if there is
// nothing new or the connection has ended.
class Flushable {
 public:
  virtual ~Flushable() = default;
  virtual void Flush() = 0;
};

// The readers to flush at the end of an engine's step. The engine passes one WakeSet to all appends of a step; the logs
// add the readers that become ready (LogReader::MarkReady), and the engine's thread flushes each of them once, when the
// step is over. So a Link that carries a thousand generations is woken once per step and not a thousand times: most of
// the cost of a token is in wake-ups. Not thread-safe: it lives on the stack of the step. The destructor flushes the
// readers that are left.
class WakeSet {
 public:
  WakeSet() = default;
  WakeSet(const WakeSet&) = delete;
  WakeSet& operator=(const WakeSet&) = delete;
  ~WakeSet() { Flush(); }

  // Called by a log for a reader that had nothing to read before.
  void Add(std::shared_ptr<Flushable> reader) { readers_.push_back(std::move(reader)); }
  bool empty() const { return readers_.empty(); }

  // The caller must not hold a lock.
  void Flush() {
    for (auto& reader : readers_) reader->Flush();
    readers_.clear();
  }

 private:
  std::vector<std::shared_ptr<Flushable>> readers_;
};

}  // namespace runnel::inference
