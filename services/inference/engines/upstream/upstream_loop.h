#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <unordered_set>
#include <vector>

#include "services/base/metrics.h"
#include "services/inference/engines/upstream/upstream_connection.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {

class UpstreamStream;

// An event loop with its thread, which serves many streams. After a flush it leaves the streams that have begun alone
// for an interval of 1 ms or more, without being woken by their sockets. Then it reads them all, appends what they
// have, and flushes the readers once: this makes the batches of the Links, and with few streams each token would
// otherwise cost wake-ups of its own. If it then reads few streams, the next interval is longer, because a batch costs
// more than its tokens. A token that comes after a pause is read and flushed immediately.
//
// All else is done at once: starts, connections, requests, and the first token of a stream, which is flushed
// immediately if the last flush is kShortTick old.
class UpstreamLoop {
 public:
  struct Shared {
    std::vector<std::unique_ptr<UpstreamTarget>> targets;  // by the number in `set`
    UpstreamSet* set = nullptr;
    UpstreamResolver* resolver = nullptr;
    prometheus::Gauge* idle_gauge = nullptr;
    prometheus::Counter* exceptions = nullptr;
    size_t max_idle_connections = 0;
    absl::Duration max_idle;
    absl::Duration flush_interval;  // the longest one
  };
  // `shared` must outlive it. Starts the thread.
  explicit UpstreamLoop(const Shared* shared);
  // Stop must have been called.
  ~UpstreamLoop();

  // Any thread. Runs `stream` to its end. After Stop it fails immediately, as draining.
  void Start(std::shared_ptr<UpstreamStream> stream);
  // Any thread. Ends the streams whose generation has been cancelled.
  void CheckCancelled();
  // Any thread. Streams that wait for a place at an upstream try again.
  void OnPlaceFree();
  // Any thread. Ends all streams; Join waits until they have ended, and the thread with them.
  void Stop();
  void Join();

  // The rest is for the streams, on the thread of the loop.
  net::io_context* io() { return &io_; }
  const Shared& shared() const { return *shared_; }
  UpstreamConnectionPool* pool(size_t upstream) { return &pools_[upstream]; }
  // For bytes that are handled before the next wait.
  std::array<char, 64 << 10>* buffer() { return &buffer_; }
  WakeSet* wake() { return &wake_; }
  UpstreamPoller* poller() { return &poller_; }
  using Clock = std::chrono::steady_clock;

 private:
  static constexpr std::chrono::nanoseconds kShortestInterval = std::chrono::milliseconds(1);
  static constexpr std::chrono::nanoseconds kShortTick = std::chrono::microseconds(250);

  void Run();
  void RunOnce();
  // Logs and counts the exception that is being handled. Our code throws nothing, but the libraries below do, for
  // example without memory: it must not end the other streams of the process.
  void OnException() noexcept;
  void Begin(std::shared_ptr<UpstreamStream> stream);
  void CheckAllDeadlines();
  void ReadStreams();
  // After a paced read of `count` streams.
  void AdjustInterval(size_t count);
  void Flush();
  // Two ways to wait for the streams: until one of them can be read, or until the next tick.
  void Watch();
  void Pace();
  Awaitable<void> RunStream(std::shared_ptr<UpstreamStream> stream);
  Awaitable<void> CheckDeadlines();

  const Shared* const shared_;
  net::io_context io_{1};
  std::vector<UpstreamConnectionPool> pools_;
  std::unordered_set<UpstreamStream*> streams_;
  UpstreamPoller poller_;
  std::array<char, 64 << 10> buffer_;
  WakeSet wake_;
  Clock::time_point last_flush_;
  const std::chrono::nanoseconds longest_interval_;
  std::chrono::nanoseconds interval_;  // from a flush to the next read of the streams
  bool read_due_ = false;              // the wait for the streams is over
  bool pacing_ = false;                // between Pace and its tick
  bool watching_ = false;              // between Watch and its end
  Timer tick_timer_;
  Descriptor readable_;  // of poller_; open in Watch only, because Asio's reactor is woken by every open descriptor
  Timer deadline_timer_;
  bool stopping_ = false;
  bool ended_ = false;  // nothing is left to wait for
  std::atomic<bool> check_posted_ = false;
  std::jthread thread_;
};

}  // namespace runnel::inference
