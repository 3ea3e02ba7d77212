#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "bridges/base/heartbeat.h"
#include "bridges/link/subscription.h"
#include "runnel/v1/websocket.pb.h"

namespace runnel::websocket {

class WsSession;

// One generation on one connection: turns what its subscription says into messages of the session, which owns it and
// must outlive it. Confined to the session's thread.
class WsStream final : public bridge::Subscription::Handler {
 public:
  // Begin at once, though nothing is said before they return.
  WsStream(WsSession* session, v1::WebSocketGenerate generate);
  WsStream(WsSession* session, const v1::WebSocketResume& resume);
  ~WsStream() override;

  // Empty until the service has named it.
  const std::string& generation_id() const { return subscription_->generation_id(); }

  void Pause() { subscription_->Pause(); }
  void Continue() { subscription_->Continue(); }
  bool paused() const { return subscription_->paused(); }

  // Sees to its heartbeats. Not while the socket takes nothing.
  void OnTick(absl::Duration now);

  // Writes nothing more and is removed at the end of the batch: another stream reads the same generation.
  void Retire();
  // Ends the wait for its first reply, if that has not been written, with an error. To be called before the stream is
  // removed early: each req is answered once.
  void FailRequest(std::string_view reason, std::string_view message);

  void OnOpened(bridge::Subscription* subscription, const bridge::GenerationInfo& opened) override;
  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;
  void OnFlush(bridge::Subscription* subscription) override;
  void OnProgress(bridge::Subscription* subscription, const v1::Progress& progress) override;
  void OnEnd(bridge::Subscription* subscription, const absl::Status& status) override;

 private:
  void WriteEvent(v1::GenerationEvent& event);
  bool MustRepeat(const absl::Status& status) const;
  void Repeat();
  void WriteEnd(const absl::Status& status);
  void WriteHeartbeat(const v1::Progress* progress);
  void WriteAttached(const bridge::GenerationInfo& opened);
  void CountResumed(const v1::GenerationEvent& event);
  void CountRefused(const absl::Status& status);

  // What each event touches: see CoalescingSocket.
  WsSession* const session_;
  absl::Duration last_written_;  // when something was last written of it, on the clock of the ticks
  const bool resumed_;
  bool opened_ = false;
  bool repeating_ = false;  // the terminal event, for a reader that has it already
  bool retired_ = false;
  std::string req_;  // of the request, until it is answered
  std::optional<bridge::Subscription> subscription_;
  uint64_t replay_until_ = 0;
  bridge::Heartbeat heartbeat_;
  bool counted_ = false;  // in the metrics of resumes
};

}  // namespace runnel::websocket
