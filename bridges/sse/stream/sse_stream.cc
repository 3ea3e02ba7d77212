#include "bridges/sse/stream/sse_stream.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/base/contain.h"
#include "bridges/base/drain_schedule.h"
#include "bridges/sse/stream/native_encoder.h"
#include "bridges/sse/stream/sse_format.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/http_response.h"
#include "services/base/random.h"

namespace runnel::sse {
namespace {

using bridge::Socket;

// Random, so that clients that lose their bridge together do not reconnect together.
uint32_t RetryMs() { return std::uniform_int_distribution<uint32_t>(500, 1500)(base::Random()); }

std::unique_ptr<bridge::StreamEncoder> OrNative(std::unique_ptr<bridge::StreamEncoder> encoder) {
  return encoder != nullptr ? std::move(encoder) : std::make_unique<NativeEncoder>(RetryMs());
}

}  // namespace

void SseStream::Start(bridge::IoThread* thread, const bridge::BridgeOptions* options, Socket socket, StreamSpec spec,
                      OnReusable on_reusable, const void* context) {
  std::shared_ptr<SseStream> stream(
      new SseStream(thread, options, std::move(socket), std::move(spec), on_reusable, context));
  stream->self_ = stream;
  stream->Begin();
}

SseStream::SseStream(bridge::IoThread* thread, const bridge::BridgeOptions* options, Socket socket, StreamSpec spec,
                     OnReusable on_reusable, const void* context)
    : keep_alive_(spec.keep_alive && spec.chunked),
      cancel_on_disconnect_(spec.cancel_on_disconnect),
      thread_(thread),
      options_(options),
      encoder_(OrNative(std::move(spec.encoder))),
      body_(spec.chunked),
      last_write_(thread->connections.now()),
      socket_(std::move(socket)),
      on_reusable_(on_reusable),
      context_(context),
      opening_(std::make_unique<Opening>()) {
  opening_->spec = std::move(spec);
}

SseStream::~SseStream() { thread_->connections.Remove(this); }

void SseStream::Begin() {
  thread_->connections.Add(this);
  WaitReadable();
  StreamSpec& spec = opening_->spec;
  bridge::Subscription::Handler* handler = this;
  if (!spec.more.empty()) handler = (group_ = std::make_unique<PromptGroup>(this)).get();
  subscription_.emplace(&thread_->router, handler);
  if (spec.unmerged) subscription_->ReadUnmerged();
  if (spec.read_before) subscription_->ReadBefore();
  if (spec.generate.has_value()) {
    const uint32_t choice_count = std::max(spec.generate->choice_count(), 1u);
    subscription_->Generate(*std::move(spec.generate), spec.after, spec.traceparent, spec.tracestate);
    spec.generate.reset();
    if (group_ == nullptr) return;
    group_->Start(&thread_->router, &*subscription_, choice_count, std::move(spec.more), spec.traceparent,
                  spec.tracestate);
  } else {
    subscription_->Attach(spec.generation_id, spec.after, std::move(spec.principal), spec.gap_policy);
  }
}

// ------------------------------------------------------------------------------------------ from the subscription

void SseStream::OnOpened(bridge::Subscription* subscription, const bridge::GenerationInfo& opened) {
  opening_->opened = true;
  // The id becomes part of a header and of event ids, where a line end would begin another header or field.
  opening_->rejection = bridge::IsGenerationId(subscription->generation_id())
                            ? encoder_->Open(subscription->generation_id(), opened)
                            : absl::InternalError("the service sent a malformed generation id");
  if (opened.existing) {
    replay_until_ = opened.last_seq;
    const bool ended = opened.status == v1::GENERATION_STATUS_DONE || opened.status == v1::GENERATION_STATUS_FAILED;
    opening_->nothing_left = ended && opened.last_seq == subscription->last_seq();
    if (subscription->last_seq() > 0) thread_->metrics->resumes_replayed.Increment();
  }
}

void SseStream::OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  // OnFlush follows. It closes a broken connection, which must not be done from here.
  if (!bridge::Contain(thread_->metrics, [&] { Append(subscription, event); })) write_failed_ = true;
}

void SseStream::Append(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  if (phase_ == Phase::kOpening && opening_->rejection.ok() && !HoldBack(event)) BeginBody();
  if (phase_ != Phase::kStreaming || write_failed_ || lost_) return;
  Encode(subscription, event);
  if (body_.pending() <= options_->max_pending_bytes) return;
  write_failed_ = !Send();
  if (body_.pending() <= options_->max_pending_bytes) return;
  thread_->metrics->slow_pauses.Increment();
  group_ != nullptr ? group_->Pause() : subscription->Pause();
}

void SseStream::Encode(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  body_.OpenChunk();
  if (event.has_gap()) {
    thread_->metrics->resumes_gap.Increment();
    lost_ = !encoder_->EncodeGap(subscription->generation_id(), event, body_.buffer());
  } else {
    encoder_->Encode(subscription->generation_id(), event, body_.buffer());
  }
  ++events_;
  tokens_ += event.delta().tokens();
  if (event.seq() <= replay_until_) ++replayed_;
}

bool SseStream::HoldBack(const v1::GenerationEvent& event) {
  if (!encoder_->delays_head() || opening_->failure.has_value()) return opening_->failure.has_value();
  if (event.has_started()) {
    opening_->started = event;
    return true;
  }
  if (event.has_failed() || event.has_done()) opening_->failure = encoder_->ErrorOfEnd(event);
  return opening_->failure.has_value();
}

void SseStream::OnFlush(bridge::Subscription*) {
  if (!bridge::Contain(thread_->metrics, [this] { Flush(); })) Close();
}

void SseStream::Flush() {
  if (phase_ == Phase::kOpening && !opening_->rejection.ok()) return Reject(opening_->rejection);
  if (phase_ == Phase::kOpening && opening_->opened && !opening_->nothing_left && !encoder_->delays_head()) {
    WriteHeader();
  }
  // The client had closed its side before the stream could begin: see LookAtClient.
  if (half_closed_ && MayBegin()) return BeginWithHeartbeat();
  if (phase_ == Phase::kStreaming && lost_) return EndWith(/*complete=*/true);
  if (phase_ == Phase::kStreaming) SendOrClose();
}

void SseStream::OnEnd(bridge::Subscription* subscription, const absl::Status& status) {
  if (!bridge::Contain(thread_->metrics, [&] { End(subscription, status); })) Close();
}

void SseStream::End(bridge::Subscription* subscription, const absl::Status& status) {
  if (phase_ == Phase::kOpening && !opening_->rejection.ok()) return Reject(opening_->rejection);
  if (phase_ == Phase::kOpening && opening_->failure.has_value()) return WriteError(*opening_->failure);
  if (phase_ == Phase::kOpening && opening_->started.has_value()) BeginBody();
  if (phase_ == Phase::kOpening) return status.ok() ? RespondNothingLeft() : Reject(status);
  if (phase_ != Phase::kStreaming) return;
  const bool complete = lost_ || (group_ != nullptr ? group_->complete() : subscription->terminal_seen());
  if (!complete) thread_->metrics->broken_streams.Increment();
  EndWith(complete);
}

// -------------------------------------------------------------------------------------------------- the response

bool SseStream::MayBegin() const {
  return phase_ == Phase::kOpening && encoder_->delays_head() && opening_->opened && opening_->rejection.ok() &&
         !opening_->nothing_left && !opening_->failure.has_value();
}

void SseStream::BeginWithHeartbeat() {
  BeginBody();
  SendHeartbeat(nullptr);
}

void SseStream::BeginBody() {
  std::optional<v1::GenerationEvent> started = std::move(opening_->started);
  WriteHeader();
  if (started.has_value()) Encode(&*subscription_, *started);
}

void SseStream::WriteHeader() {
  body_.BorrowBuffer();
  absl::StrAppend(body_.buffer(), bridge::StatusLine(200), kStreamHeaders,
                  "x-generation-id: ", subscription_->generation_id(), "\r\n", opening_->spec.common_headers,
                  opening_->spec.chunked ? "transfer-encoding: chunked\r\n" : "",
                  keep_alive_ ? "" : "connection: close\r\n", "\r\n");
  phase_ = Phase::kStreaming;
  thread_->metrics->CountRequest(200);
  thread_->metrics->streams.Increment();
  if (opening_->spec.read_ahead.bytes.empty()) {
    opening_.reset();
  } else {
    ReadAhead read_ahead = std::move(opening_->spec.read_ahead);
    opening_ = std::make_unique<Opening>();
    opening_->spec.read_ahead = std::move(read_ahead);
  }
}

void SseStream::Reject(const absl::Status& status) {
  const bridge::HttpError error = encoder_->ErrorOf(status, opening_->spec.repeatable);
  if (error.status == 404 || error.status == 410) thread_->metrics->resumes_gone.Increment();
  WriteError(error);
}

void SseStream::WriteError(const bridge::HttpError& error) { WriteWhole(bridge::ErrorResponse(error)); }

void SseStream::RespondNothingLeft() {
  bridge::HttpResponse response;
  response.status = 204;
  WriteWhole(std::move(response));
}

void SseStream::WriteWhole(bridge::HttpResponse response) {
  thread_->metrics->CountRequest(response.status);
  response.headers += opening_->spec.common_headers;
  response.keep_alive = opening_->spec.keep_alive;
  keep_alive_ = response.keep_alive;
  *body_.buffer() = bridge::Serialize(response);
  phase_ = Phase::kEnding;
  SendOrClose();
}

void SseStream::EndWith(bool complete) {
  body_.CloseChunk();
  if (!complete || !body_.AppendLastChunk()) keep_alive_ = false;
  phase_ = Phase::kEnding;
  thread_->metrics->streams.Decrement();
  SendOrClose();
}

// ----------------------------------------------------------------------------------------------- from the thread

void SseStream::OnTick(absl::Duration now) {
  if (look_on_tick_ && !LookAtClient()) return;
  if (phase_ != Phase::kOpening && body_.pending() > 0) {
    if (now - last_write_ < options_->write_timeout) return;
    thread_->metrics->slow_disconnects.Increment();
    return Close();
  }
  if (MayBegin() && now >= leave_at_) BeginBody();
  if (MayBegin() && now - last_write_ >= options_->heartbeat_interval) return BeginWithHeartbeat();
  if (phase_ != Phase::kStreaming) return;
  if (now >= leave_at_) {
    thread_->metrics->broken_streams.Increment();
    body_.OpenChunk();
    body_.buffer()->append(kGoaway);
    return EndWith(/*complete=*/false);
  }
  switch (heartbeat_.OnTick(now - last_write_, options_->heartbeat_interval)) {
    case bridge::Heartbeat::Due::kNothing:
      return;
    case bridge::Heartbeat::Due::kRequestProgress:
      return encoder_->reports_progress() ? subscription_->RequestProgress() : void();
    case bridge::Heartbeat::Due::kSend:
      return SendHeartbeat(nullptr);
  }
}

void SseStream::OnProgress(bridge::Subscription*, const v1::Progress& progress) {
  if (phase_ != Phase::kStreaming || body_.pending() > 0) return;
  if (heartbeat_.OnProgress(thread_->connections.now() - last_write_, options_->heartbeat_interval))
    SendHeartbeat(&progress);
}

void SseStream::SendHeartbeat(const v1::Progress* progress) {
  thread_->metrics->heartbeats.Increment();
  body_.OpenChunk();
  progress == nullptr ? void(body_.buffer()->append(kHeartbeat)) : AppendHeartbeat(*progress, body_.buffer());
  SendOrClose();
}

void SseStream::OnDrain() {
  keep_alive_ = false;
  if (cancel_on_disconnect_) return;
  leave_at_ = bridge::DrainSchedule(options_->drain_timeout).PickEnd(thread_->connections.now());
}

void SseStream::OnCut() {
  if (phase_ == Phase::kStreaming) thread_->metrics->broken_streams.Increment();
  Close();
}

}  // namespace runnel::sse
