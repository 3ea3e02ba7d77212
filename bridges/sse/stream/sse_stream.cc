#include "bridges/sse/stream/sse_stream.h"
#include "bridges/sse/stream/native_encoder.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/base/contain.h"
#include "bridges/base/drain_schedule.h"
#include "bridges/base/spare_buffers.h"
#include "bridges/sse/stream/sse_format.h"
#include "bridges/wire/cursor.h"
#include "bridges/wire/http_response.h"
#include "services/base/random.h"

namespace runnel::sse {
namespace {

using bridge::Socket;

// Room for the size of a chunk in hexadecimal and its line end, filled in when the chunk is closed.
constexpr size_t kChunkDigits = 8;
constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";
// The least that a buffer begins with: an event takes about 200 bytes.
constexpr size_t kFirstCapacity = 1 << 10;
// Clients that lose their bridge together must not come back together.
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
    : chunked_(spec.chunked),
      keep_alive_(spec.keep_alive && spec.chunked),
      cancel_on_disconnect_(spec.cancel_on_disconnect),
      thread_(thread),
      options_(options),
      encoder_(OrNative(std::move(spec.encoder))),
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
  bridge::Subscription::Handler* reader = this;
  if (!spec.more.empty()) reader = (group_ = std::make_unique<PromptGroup>(this)).get();
  subscription_.emplace(&thread_->router, reader);
  if (spec.unmerged) subscription_->ReadUnmerged();
  if (spec.read_before) subscription_->ReadBefore();
  if (spec.gap_policy == v1::GAP_POLICY_FAIL) subscription_->RefuseGaps();
  if (spec.generate.has_value()) {
    const uint32_t choice_count = std::max(spec.generate->choice_count(), 1u);
    subscription_->Generate(*std::move(spec.generate), spec.after_seq, spec.traceparent, spec.tracestate);
    spec.generate.reset();
    if (group_ == nullptr) return;
    group_->Start(&thread_->router, &*subscription_, choice_count, std::move(spec.more), spec.traceparent,
                  spec.tracestate);
  } else {
    subscription_->Attach(spec.generation_id, spec.after_seq, std::move(spec.principal), spec.gap_policy);
  }
}

// ------------------------------------------------------------------------------------------ from the subscription

void SseStream::OnOpened(bridge::Subscription* subscription, const bridge::GenerationInfo& opened) {
  opening_->opened = true;
  // It goes into a header and into ids, where a line end would be another header or field.
  opening_->refusal = bridge::IsGenerationId(subscription->generation_id())
                          ? encoder_->Open(subscription->generation_id(), opened)
                          : absl::InternalError("bad id of a generation");
  if (opened.existing) {
    replay_until_ = opened.last_seq;
    const bool ended = opened.status == v1::GENERATION_STATUS_DONE || opened.status == v1::GENERATION_STATUS_FAILED;
    opening_->nothing_left = ended && opened.last_seq == subscription->last_seq();
    if (subscription->last_seq() > 0) thread_->metrics->resumes_replayed.Increment();
  }
}

void SseStream::OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  // OnFlush follows and closes the connection if it is broken, which must not be done from here.
  if (!bridge::Contain(thread_->metrics, [&] { Append(subscription, event); })) write_failed_ = true;
}

void SseStream::Append(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  if (phase_ == Phase::kOpening && opening_->refusal.ok()) WriteHeader();
  if (phase_ != Phase::kStreaming || write_failed_) return;
  OpenChunk();
  encoder_->Encode(subscription->generation_id(), event, &out_);
  ++events_;
  tokens_ += event.delta().tokens();
  if (event.seq() <= replay_until_) ++replayed_;
  if (event.has_gap()) thread_->metrics->resumes_gap.Increment();
  if (pending() <= options_->max_pending_bytes) return;
  write_failed_ = !Send();
  if (pending() <= options_->max_pending_bytes) return;
  thread_->metrics->slow_pauses.Increment();
  group_ != nullptr ? group_->Pause() : subscription->Pause();
}

void SseStream::OnFlush(bridge::Subscription*) {
  if (!bridge::Contain(thread_->metrics, [this] { Flush(); })) Close();
}

void SseStream::Flush() {
  if (phase_ == Phase::kOpening && !opening_->refusal.ok()) return Refuse(opening_->refusal);
  if (phase_ == Phase::kOpening && opening_->opened && !opening_->nothing_left) WriteHeader();
  if (phase_ == Phase::kStreaming) SendOrClose();
}

void SseStream::OnEnd(bridge::Subscription* subscription, const absl::Status& status) {
  if (!bridge::Contain(thread_->metrics, [&] { End(subscription, status); })) Close();
}

void SseStream::End(bridge::Subscription* subscription, const absl::Status& status) {
  if (phase_ == Phase::kOpening && !opening_->refusal.ok()) return Refuse(opening_->refusal);
  if (phase_ == Phase::kOpening) return status.ok() ? AnswerNothingLeft() : Refuse(status);
  if (phase_ != Phase::kStreaming) return;
  const bool complete = group_ != nullptr ? group_->complete() : subscription->terminal_seen();
  if (!complete) thread_->metrics->broken_streams.Increment();
  EndWith(complete);
}

// --------------------------------------------------------------------------------------------------- the answer

void SseStream::WriteHeader() {
  BorrowBuffer();
  absl::StrAppend(&out_, bridge::StatusLine(200), kStreamHeaders, "x-generation-id: ", subscription_->generation_id(),
                  "\r\n", opening_->spec.common_headers, chunked_ ? "transfer-encoding: chunked\r\n" : "",
                  keep_alive_ ? "" : "connection: close\r\n", "\r\n");
  phase_ = Phase::kStreaming;
  thread_->metrics->CountRequest(200);
  thread_->metrics->streams.Increment();
  // The header is no part of a chunk.
  chunk_open_ = false;
  if (opening_->spec.read_ahead.bytes.empty()) {
    opening_.reset();
  } else {
    ReadAhead read_ahead = std::move(opening_->spec.read_ahead);
    opening_ = std::make_unique<Opening>();
    opening_->spec.read_ahead = std::move(read_ahead);
  }
}

void SseStream::Refuse(const absl::Status& status) {
  const bridge::HttpError error = encoder_->ErrorOf(status, opening_->spec.repeatable);
  if (error.status == 404 || error.status == 410) thread_->metrics->resumes_gone.Increment();
  thread_->metrics->CountRequest(error.status);
  bridge::HttpResponse response = bridge::ErrorResponse(error);
  response.headers += opening_->spec.common_headers;
  response.keep_alive = opening_->spec.keep_alive;
  keep_alive_ = response.keep_alive;
  out_ = bridge::Serialize(response);
  phase_ = Phase::kEnding;
  SendOrClose();
}

void SseStream::AnswerNothingLeft() {
  thread_->metrics->CountRequest(204);
  bridge::HttpResponse response;
  response.status = 204;
  response.headers = opening_->spec.common_headers;
  response.keep_alive = opening_->spec.keep_alive;
  keep_alive_ = response.keep_alive;
  out_ = bridge::Serialize(response);
  phase_ = Phase::kEnding;
  SendOrClose();
}

void SseStream::EndWith(bool complete) {
  CloseChunk();
  if (complete && chunked_) {
    out_ += kLastChunk;
  } else {
    keep_alive_ = false;
  }
  phase_ = Phase::kEnding;
  thread_->metrics->streams.Decrement();
  SendOrClose();
}

void SseStream::BorrowBuffer() {
  if (!out_.empty()) return;
  bridge::BorrowBuffer(&out_);
  out_.reserve(kFirstCapacity);
}

void SseStream::OpenChunk() {
  if (std::exchange(chunk_open_, true)) return;
  BorrowBuffer();
  if (!chunked_) return;
  chunk_begin_ = out_.size();
  out_.append(kChunkDigits, '0').append(kLineEnd);
}

void SseStream::CloseChunk() {
  if (!std::exchange(chunk_open_, false) || !chunked_) return;
  const size_t bytes = out_.size() - chunk_begin_ - kChunkDigits - kLineEnd.size();
  // An encoder may have nothing to say, and an empty chunk would be the end.
  if (bytes == 0) return out_.resize(chunk_begin_);
  std::array<char, kChunkDigits> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), bytes, 16).ptr;
  const auto count = static_cast<size_t>(end - digits.data());
  out_.replace(chunk_begin_, kChunkDigits, digits.data(), count);
  out_ += kLineEnd;
}

// ----------------------------------------------------------------------------------------------- from the thread

void SseStream::OnTick(absl::Duration now) {
  if (look_on_tick_ && !LookAtClient()) return;
  if (phase_ != Phase::kOpening && pending() > 0) {
    if (now - last_write_ < options_->write_timeout) return;
    thread_->metrics->slow_disconnects.Increment();
    return Close();
  }
  if (phase_ != Phase::kStreaming) return;
  if (now >= leave_at_) {
    thread_->metrics->broken_streams.Increment();
    OpenChunk();
    out_ += kGoaway;
    return EndWith(/*complete=*/false);
  }
  switch (heartbeat_.OnTick(now - last_write_, options_->heartbeat_interval)) {
    case bridge::Heartbeat::Due::kNothing:
      return;
    case bridge::Heartbeat::Due::kRequestProgress:
      return encoder_->tells_progress() ? subscription_->RequestProgress() : void();
    case bridge::Heartbeat::Due::kSend:
      return SendHeartbeat(nullptr);
  }
}

void SseStream::OnProgress(bridge::Subscription*, const v1::Progress& progress) {
  if (phase_ != Phase::kStreaming || pending() > 0) return;
  if (heartbeat_.OnProgress(thread_->connections.now() - last_write_, options_->heartbeat_interval))
    SendHeartbeat(&progress);
}

void SseStream::SendHeartbeat(const v1::Progress* progress) {
  thread_->metrics->heartbeats.Increment();
  OpenChunk();
  progress == nullptr ? void(out_ += kHeartbeat) : AppendHeartbeat(*progress, &out_);
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
