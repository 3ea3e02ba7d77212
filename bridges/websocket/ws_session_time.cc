// WsSession: deadlines, pings, heartbeats and the drain.
#include <cstdint>
#include <utility>

#include "bridges/base/drain_schedule.h"
#include "bridges/websocket/close_codes.h"
#include "bridges/websocket/coalescing_socket.h"
#include "bridges/websocket/ws_session.h"
#include "bridges/websocket/ws_stream.h"
#include "services/base/clock.h"

namespace runnel::websocket {
namespace {

// Pings in a row after which a client that sends nothing is disconnected.
constexpr int kMaxUnansweredPings = 2;
// Ticks after which all operations of a closed socket have run their handlers.
constexpr int kMaxCutTicks = 3;

}  // namespace

void WsSession::OnTick(absl::Duration) {
  const auto self = shared_from_this();
  Guard([this] { OnTime(base::Clock::System().Monotonic()); });
}

void WsSession::OnTime(absl::Duration now) {
  if (now >= cut_at_) return Cut();
  // Also if Beast sent the close frame, because it waits for the peer without a time limit.
  if (!open()) return CutNoLaterThan(now + context_.options.close_timeout);
  const bool stuck = out_.pending() > 0;
  if (stuck && now - last_progress_ >= context_.bridge.write_timeout) {
    context_.metrics->slow_disconnects.Increment();
    return CloseWith(kCloseSlow, "the client reads too slowly; reconnect and resume");
  }
  if (!authenticated_ && now - opened_ >= context_.options.auth_timeout) {
    return CloseWith(kCloseTooLate, "no auth message in time");
  }
  if (frames_.unfinished() && now - unfinished_since_ >= context_.options.message_timeout) {
    return CloseWith(kCloseTooLate, "a message was not completed in time");
  }
  MaybeGoAway(now);
  if (!open()) return;
  if (!streams_.empty()) last_message_ = now;
  if (now - last_message_ >= context_.bridge.idle_timeout)
    return CloseWith(kCloseTooLate, "idle connection without streams");
  if (stuck) return;
  for (const auto& stream : streams_) stream->OnTick(thread_->connections.now());
  MaybePing(now);
}

void WsSession::Cut() {
  out_.Close();
  // If Beast's read fails inside a payload while its close waits for that read, the two wait for each other.
  if (++cut_ticks_ >= kMaxCutTicks) ReleaseBeast();
}

void WsSession::OnCut() {
  cut_at_ = absl::ZeroDuration();
  Guard([this] { out_.Close(); });
}

void WsSession::MaybePing(absl::Duration now) {
  if (now - last_ping_ < context_.options.ping_interval) return;
  if (unanswered_pings_ >= kMaxUnansweredPings) return out_.Close();
  last_ping_ = now;
  unanswered_pings_++;
  context_.metrics->heartbeats.Increment();
  Ping();
}

void WsSession::OnDrain() {
  const bridge::DrainSchedule schedule(context_.bridge.drain_timeout);
  const absl::Duration now = base::Clock::System().Monotonic();
  go_away_at_ = schedule.PickNotice(now);
  close_at_ = schedule.LastEnd(now);
}

void WsSession::MaybeGoAway(absl::Duration now) {
  if (now >= go_away_at_ && !std::exchange(goaway_sent_, true)) {
    v1::WebSocketServerMessage message;
    message.mutable_goaway()->set_reason("drain");
    message.mutable_goaway()->set_deadline_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(close_at_ - now)));
    WriteMessage(message);
    Flush();
  }
  if (now >= close_at_ || (goaway_sent_ && streams_.empty())) CloseWith(kCloseGoingAway, "drain");
}

}  // namespace runnel::websocket
