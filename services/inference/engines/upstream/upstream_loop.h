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

// An event loop with its thread, which serves many streams. All that it reads in one iteration is appended first, and
// then the readers are flushed once: this makes the batches of the Links. A flush follows another by at least kTick,
// and the loop reads nothing before that moment; with few streams each token would otherwise cost a batch of its own.
// The first token after a pause is flushed immediately.
class UpstreamLoop {
 public:
  struct Shared {
    std::vector<std::unique_ptr<UpstreamTarget>> targets;  // by the number in `set`
    UpstreamSet* set = nullptr;
    UpstreamResolver* resolver = nullptr;
    prometheus::Gauge* idle_gauge = nullptr;
    size_t max_idle_connections = 0;
    absl::Duration max_idle;
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
  using Clock = std::chrono::steady_clock;

 private:
  static constexpr std::chrono::milliseconds kTick{1};

  void Run();
  void FlushPaced();
  Awaitable<void> RunStream(std::shared_ptr<UpstreamStream> stream);
  Awaitable<void> CheckDeadlines();

  const Shared* const shared_;
  net::io_context io_{1};
  std::vector<UpstreamConnectionPool> pools_;
  std::unordered_set<UpstreamStream*> streams_;
  std::array<char, 64 << 10> buffer_;
  WakeSet wake_;
  Clock::time_point last_flush_;
  Timer deadline_timer_;
  bool stopping_ = false;
  std::atomic<bool> check_posted_ = false;
  std::jthread thread_;
};

}  // namespace runnel::inference
