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

// One generation on one connection: writes the events of its subscription as messages of the session, which owns it.
// Confined to the session's thread.
class WsStream final : public bridge::Subscription::Handler {
 public:
  // Both start the subscription; no handler runs before they return.
  WsStream(WsSession* session, v1::WebSocketGenerate generate);
  WsStream(WsSession* session, const v1::WebSocketResume& resume);
  ~WsStream() override;

  // Empty until the service has reported it.
  const std::string& generation_id() const { return subscription_->generation_id(); }

  void Pause() { subscription_->Pause(); }
  void Continue() { subscription_->Continue(); }
  bool paused() const { return subscription_->paused(); }

  // Sends a heartbeat when one is due. Do not call while the socket is blocked.
  void OnTick(absl::Duration now);

  // Stops writing, because another stream reads the same generation. The stream is removed at the end of the batch.
  void Retire();
  // Sends an error as the reply to the request if it has had no reply. Call before removing the stream early: each req
  // gets exactly one reply.
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

  // Hot fields first: see CoalescingSocket.
  WsSession* const session_;
  absl::Duration last_written_;  // time of the last message of this stream, on the clock of the ticks
  const bool resumed_;
  bool opened_ = false;
  bool repeating_ = false;  // sends the terminal event again to a reader that already has it
  bool retired_ = false;
  std::string req_;  // the request's req, until its reply has been written
  std::optional<bridge::Subscription> subscription_;
  uint64_t replay_until_ = 0;
  bridge::Heartbeat heartbeat_;
  bool counted_ = false;  // in the resume metrics
};

}  // namespace runnel::websocket
