#include "services/inference/engines/upstream/upstream_loop.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <exception>
#include <utility>

#include "services/inference/engines/upstream/upstream_stream.h"

namespace runnel::inference {
namespace {

// How precisely deadlines are kept. One timer for all streams: a timer for each would be moved with every token.
constexpr std::chrono::milliseconds kDeadlineInterval(25);
// Without streams, only idle connections have deadlines.
constexpr std::chrono::milliseconds kIdleInterval(1000);

}  // namespace

UpstreamLoop::UpstreamLoop(const Shared* shared)
    : shared_(shared),
      longest_interval_(absl::ToChronoNanoseconds(shared->flush_interval)),
      interval_(std::min(kShortestInterval, longest_interval_)),
      tick_timer_(io_),
      readable_(io_),
      deadline_timer_(io_) {
  pools_.reserve(shared->targets.size());
  for (size_t i = 0; i < shared->targets.size(); ++i) {
    pools_.emplace_back(shared->max_idle_connections, shared->max_idle, shared->idle_gauge);
  }
  net::co_spawn(io_, CheckDeadlines(), net::detached);
  Watch();
  thread_ = std::jthread([this] { Run(); });
}

UpstreamLoop::~UpstreamLoop() = default;

void UpstreamLoop::Run() {
  while (!io_.stopped()) {
    try {
      RunOnce();
    } catch (...) {
      OnException();
    }
  }
  wake_.Flush();
}

void UpstreamLoop::RunOnce() {
  if (io_.run_one() == 0) return;
  io_.poll();
  if (std::exchange(read_due_, false)) {
    ReadStreams();
  } else if (!wake_.empty()) {
    if (Clock::now() >= last_flush_ + kShortTick) {
      Flush();
    } else {
      Pace();
    }
  }
}

void UpstreamLoop::OnException() noexcept {
  try {
    shared_->exceptions->Increment();
    throw;
  } catch (const std::exception& error) {
    spdlog::error("an exception on an upstream loop: {}", error.what());
  } catch (...) {
    spdlog::error("an unknown exception on an upstream loop");
  }
}

void UpstreamLoop::ReadStreams() {
  const bool paced = std::exchange(pacing_, false);
  const size_t count = poller_.Poll();
  // Streams that have ended continue here.
  if (count > 0) io_.poll();
  if (!wake_.empty()) Flush();
  if (paced) AdjustInterval(count);
  if ((count > 0 && paced) || poller_.again()) {
    Pace();
  } else {
    Watch();
  }
}

void UpstreamLoop::AdjustInterval(size_t count) {
  // A batch costs a fifth of a millisecond in all processes, as much as about 16 tokens, so that 48 make it a quarter
  // of the sum.
  constexpr size_t kFew = 48;
  constexpr size_t kMany = 144;  // above twice as many, so that the interval settles
  if (count < kFew) interval_ = std::min(interval_ * 2, longest_interval_);
  if (count > kMany) interval_ = std::min(std::max(interval_ / 2, kShortestInterval), longest_interval_);
}

void UpstreamLoop::Flush() {
  wake_.Flush();
  last_flush_ = Clock::now();
}

void UpstreamLoop::Pace() {
  if (ended_ || std::exchange(pacing_, true)) return;
  if (readable_.is_open()) readable_.release();
  tick_timer_.expires_at(last_flush_ + interval_);
  tick_timer_.async_wait([this](ErrorCode) { read_due_ = true; });
}

void UpstreamLoop::Watch() {
  if (ended_ || std::exchange(watching_, true)) return;
  if (!readable_.is_open()) readable_.assign(poller_.fd());
  readable_.async_wait(Descriptor::wait_read, [this](ErrorCode) {
    watching_ = false;
    if (pacing_) return;
    if (Clock::now() < last_flush_ + interval_) {
      Pace();
    } else {
      read_due_ = true;
    }
  });
}

void UpstreamLoop::Start(std::shared_ptr<UpstreamStream> stream) {
  net::post(io_, [this, stream = std::move(stream)] { Begin(stream); });
}

void UpstreamLoop::Begin(std::shared_ptr<UpstreamStream> stream) {
  try {
    if (streams_.empty()) deadline_timer_.cancel();  // to the shorter interval
    streams_.insert(stream.get());
    if (stopping_) stream->Interrupt(UpstreamStream::Reason::kStopping);
    net::co_spawn(io_, RunStream(stream), net::detached);
  } catch (...) {
    OnException();
    streams_.erase(stream.get());
    stream->FailInternally();
  }
}

Awaitable<void> UpstreamLoop::RunStream(std::shared_ptr<UpstreamStream> stream) {
  try {
    co_await stream->Run();
  } catch (...) {
    OnException();
    stream->FailInternally();
  }
  streams_.erase(stream.get());
  if (stopping_ && streams_.empty()) deadline_timer_.cancel();
}

Awaitable<void> UpstreamLoop::CheckDeadlines() {
  while (!stopping_ || !streams_.empty()) {
    deadline_timer_.expires_after(streams_.empty() ? kIdleInterval : kDeadlineInterval);
    co_await deadline_timer_.async_wait(kAwait);
    try {
      CheckAllDeadlines();
    } catch (...) {
      OnException();
    }
  }
  pools_.clear();
  ended_ = true;
  if (readable_.is_open()) readable_.release();
  tick_timer_.cancel();
}

void UpstreamLoop::CheckAllDeadlines() {
  const Clock::time_point now = Clock::now();
  for (UpstreamStream* stream : streams_) stream->CheckDeadlines(now);
  if (!streams_.empty()) return;
  for (UpstreamConnectionPool& pool : pools_) pool.CloseOld();
}

void UpstreamLoop::CheckCancelled() {
  if (check_posted_.exchange(true)) return;
  net::post(io_, [this] {
    check_posted_ = false;
    for (UpstreamStream* stream : streams_) stream->CheckCancelled();
  });
}

void UpstreamLoop::OnPlaceFree() {
  net::post(io_, [this] {
    for (UpstreamStream* stream : streams_) stream->OnPlaceFree();
  });
}

void UpstreamLoop::Stop() {
  net::post(io_, [this] {
    stopping_ = true;
    for (UpstreamStream* stream : streams_) stream->Interrupt(UpstreamStream::Reason::kStopping);
    deadline_timer_.cancel();
  });
}

void UpstreamLoop::Join() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace runnel::inference
