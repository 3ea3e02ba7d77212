#include "bridges/websocket/ws_stream.h"

#include <algorithm>
#include <utility>

#include "bridges/websocket/ws_error.h"
#include "bridges/websocket/ws_session.h"
#include "services/base/grpc_status.h"

namespace runnel::websocket {

WsStream::WsStream(WsSession* session, v1::WebSocketGenerate generate)
    : session_(session), last_written_(session->thread()->connections.now()), resumed_(false), req_(generate.req()) {
  subscription_.emplace(&session->thread()->router, this);
  generate.mutable_request()->set_principal(session->principal());
  subscription_->Generate(std::move(*generate.mutable_request()), 0, std::move(*generate.mutable_traceparent()),
                          std::move(*generate.mutable_tracestate()));
  session_->context().metrics->streams.Increment();  // Last, because the destructor, which decrements it, does not run
                                                     // if the constructor throws.
}

WsStream::WsStream(WsSession* session, const v1::WebSocketResume& resume)
    : session_(session), last_written_(session->thread()->connections.now()), resumed_(true), req_(resume.req()) {
  subscription_.emplace(&session->thread()->router, this);
  subscription_->Attach(resume.generation_id(), {resume.after_seq(), resume.after_epoch()}, session->principal(),
                        resume.gap_policy());
  session_->context().metrics->streams.Increment();
}

WsStream::~WsStream() { session_->context().metrics->streams.Decrement(); }

void WsStream::Retire() {
  FailRequest("SUPERSEDED", "replaced by a later request for the same generation on this connection");
  retired_ = true;
}

void WsStream::FailRequest(std::string_view reason, std::string_view message) {
  if (req_.empty()) return;
  session_->WriteError(std::exchange(req_, std::string()), "",
                       base::MakeError(absl::StatusCode::kFailedPrecondition, reason, message));
}

// Called by the subscription. Its Link serves other connections too, so no exception may reach it.

void WsStream::OnOpened(bridge::Subscription*, const bridge::GenerationInfo& opened) {
  session_->Guard([&] {
    session_->OnIdKnown(this);
    if (retired_ || std::exchange(opened_, true) || !resumed_) return;
    replay_until_ = opened.last_seq;
    WriteAttached(opened);
  });
}

void WsStream::OnEvent(bridge::Subscription*, v1::GenerationEvent& event) {
  session_->Guard([&] { WriteEvent(event); });
}

void WsStream::OnFlush(bridge::Subscription*) {
  session_->Guard([&] {
    session_->FlushSoon();
    if (retired_) session_->RemoveStream(this);
  });
}

void WsStream::OnProgress(bridge::Subscription*, const v1::Progress& progress) {
  session_->Guard([&] {
    if (retired_) return;
    const absl::Duration idle = session_->thread()->connections.now() - last_written_;
    if (heartbeat_.OnProgress(idle, session_->context().bridge.heartbeat_interval)) WriteHeartbeat(&progress);
  });
}

void WsStream::OnEnd(bridge::Subscription*, const absl::Status& status) {
  session_->Guard([&] {
    if (MustRepeat(status)) return Repeat();
    if (!status.ok() && !retired_) WriteEnd(status);
    session_->FlushSoon();
    session_->RemoveStream(this);
  });
}

void WsStream::WriteAttached(const bridge::GenerationInfo& opened) {
  v1::WebSocketServerMessage message;
  message.set_req(std::exchange(req_, std::string()));
  v1::WebSocketAttached* attached = message.mutable_attached();
  attached->set_generation_id(generation_id());
  attached->set_after_seq(opened.after_seq);
  attached->set_last_seq(opened.last_seq);
  attached->set_epoch(opened.epoch);
  attached->set_status(opened.status);
  *attached->mutable_parts() = opened.parts;
  session_->WriteMessage(message);
}

void WsStream::WriteEvent(v1::GenerationEvent& event) {
  if (retired_) return;
  if (resumed_) CountResumed(event);
  last_written_ = session_->thread()->connections.now();
  session_->WriteEvent(this, req_, &event);
  if (!req_.empty()) std::string().swap(req_);
}

void WsStream::OnTick(absl::Duration now) {
  if (!opened_ || retired_) return;
  switch (heartbeat_.OnTick(now - last_written_, session_->context().bridge.heartbeat_interval)) {
    case bridge::Heartbeat::Due::kNothing:
      return;
    case bridge::Heartbeat::Due::kRequestProgress:
      return subscription_->RequestProgress();
    case bridge::Heartbeat::Due::kSend:
      return WriteHeartbeat(nullptr);
  }
}

void WsStream::WriteHeartbeat(const v1::Progress* progress) {
  last_written_ = session_->thread()->connections.now();
  session_->context().metrics->heartbeats.Increment();
  v1::WebSocketServerMessage message;
  message.mutable_heartbeat()->set_generation_id(generation_id());
  if (progress != nullptr) *message.mutable_heartbeat()->mutable_progress() = *progress;
  session_->WriteMessage(message);
  session_->FlushSoon();
}

// Whether the client resumed at the end of an ended log, so that there was no event. It is sent the terminal event
// again.
bool WsStream::MustRepeat(const absl::Status& status) const {
  return status.ok() && !subscription_->terminal_seen() && !retired_ && !repeating_ && subscription_->last_seq() > 0;
}

void WsStream::Repeat() {
  repeating_ = true;
  const bridge::LogPosition last = subscription_->position();
  const std::string id = generation_id();
  subscription_.emplace(&session_->thread()->router, this);
  subscription_->Attach(id, {last.seq - 1, last.epoch}, session_->principal());
}

void WsStream::WriteEnd(const absl::Status& status) {
  if (opened_) session_->context().metrics->broken_streams.Increment();
  if (resumed_ && !opened_) CountRefused(status);
  session_->WriteError(std::exchange(req_, std::string()), generation_id(), status);
}

void WsStream::CountResumed(const v1::GenerationEvent& event) {
  bridge::BridgeMetrics& metrics = *session_->context().metrics;
  if (event.seq() <= replay_until_) metrics.replayed_events.Increment();
  if (std::exchange(counted_, true)) return;
  (event.has_gap() ? metrics.resumes_gap : metrics.resumes_replayed).Increment();
}

void WsStream::CountRefused(const absl::Status& status) {
  bridge::BridgeMetrics& metrics = *session_->context().metrics;
  if (absl::IsNotFound(status)) metrics.resumes_gone.Increment();
  if (absl::IsOutOfRange(status)) metrics.resumes_gap.Increment();
}

}  // namespace runnel::websocket
