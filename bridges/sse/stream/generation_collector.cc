#include "bridges/sse/stream/generation_collector.h"

#include <algorithm>

#include "bridges/sse/stream/cancel_unless_ended.h"

namespace runnel::sse {
namespace {

// On top of the longest time that a client may be without an attachment.
constexpr absl::Duration kDetachSlack = absl::Seconds(5);

}  // namespace

void GenerationCollector::OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  if (event.has_gap()) {
    collected_ = {};
    return subscription->ReadAgain();
  }
  collected_.Add(event);
  if (too_large()) subscription->Pause();
}

void SetDetachTimeout(const bridge::BridgeOptions& options, v1::GenerateRequest* request) {
  const absl::Duration timeout = std::max(options.write_timeout, options.recovery_timeout) + kDetachSlack;
  request->mutable_detach_timeout()->set_seconds(std::min<int64_t>(absl::ToInt64Seconds(timeout), 86'400));
}

bridge::Awaitable<bool> CollectToEnd(bridge::IoThread* thread, HttpConnection* connection,
                                     GenerationCollector* collector, OnHalfClose on_half_close) {
  bool connected = true;
  while (connected && !collector->ended() && !collector->too_large()) {
    connected = co_await collector->WaitFor(connection, absl::InfiniteDuration());
    if (connection->half_closed() && on_half_close == OnHalfClose::kGiveUp && !collector->ended()) connected = false;
  }
  // A generation that is being opened has no id yet by which it could be cancelled. It opens or fails within
  // --open_timeout.
  while (!collector->opened() && !collector->ended()) co_await collector->Wait();
  if (!collector->ended()) CancelUnlessEnded(thread, collector->subscription());
  co_return connected;
}

namespace {

// Each follows a takeover that has lost a part of the log.
constexpr int kMaxReads = 3;

bridge::Awaitable<bool> CollectOnce(HttpConnection* connection, GenerationCollector* collector) {
  while (!collector->ended() && !collector->too_large() &&
         !(collector->opened() && collector->subscription().last_seq() >= collector->info().last_seq)) {
    const bool connected = co_await collector->WaitFor(connection, absl::InfiniteDuration());
    if (!connected) co_return false;
  }
  co_return true;
}

}  // namespace

bridge::Awaitable<bool> CollectLog(const ApiCall* call, std::string id, std::optional<GenerationCollector>* collector) {
  for (int reads = 0; reads < kMaxReads; ++reads) {
    collector->emplace(call->thread);
    (*collector)->subscription().Attach(id, 0, call->request->principal, v1::GAP_POLICY_FAIL);
    const bool connected = co_await CollectOnce(call->connection, &**collector);
    if (!connected) co_return false;
    if (!absl::IsOutOfRange((*collector)->status())) break;
  }
  co_return true;
}

}  // namespace runnel::sse
