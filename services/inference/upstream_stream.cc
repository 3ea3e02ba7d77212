#include "services/inference/upstream_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/strings.h"
#include "services/inference/upstream_failure.h"
#include "services/inference/wake_set.h"

namespace runnel::inference {
namespace {

constexpr int kOk = 200;
constexpr size_t kMaxErrorBodyBytes = 64 << 10;
constexpr size_t kMaxContentTypeBytes = 64;

Failed Draining() { return {"draining", "the service is stopping", true}; }

}  // namespace

UpstreamStream::UpstreamStream(std::unique_ptr<PreparedUpstream> prepared, std::shared_ptr<EventSink> sink,
                               const Options& options)
    : options_(options),
      prepared_(std::move(prepared)),
      sink_(std::move(sink)),
      answer_(prepared_->choice_count, options_.answer, sink_.get()) {}

std::string UpstreamStream::Run(UpstreamConnectionPool* pool) {
  std::unique_ptr<UpstreamConnection> connection = pool->Take(false);
  bool may_try_again = connection->used();
  while (true) {
    const UpstreamResult result = Exchange(prepared_->path, prepared_->body, connection.get());
    // The server closed a kept connection just as it was used again: nothing of this answer has come, and a new
    // connection is all that is needed.
    bool again = std::exchange(may_try_again, false) && result.end == UpstreamResult::End::kCut && result.status == 0;
    bool engine_stops = false;
    if (!OnExchangeOver(&again, &engine_stops)) return engine_stops ? Draining().code : "cancelled";
    if (again) {
      connection = pool->Take(true);
      continue;
    }
    End(result, engine_stops);
    if (connection->used()) pool->Put(std::move(connection));
    return answer_.outcome();
  }
}

UpstreamResult UpstreamStream::Exchange(std::string_view path, std::string_view body, UpstreamConnection* connection) {
  UpstreamConnection::Handlers handlers;
  handlers.on_connected = [&] { return OnConnected(connection); };
  handlers.on_head = [&](int status, std::string_view content_type) { return OnHead(status, content_type); };
  handlers.on_body = [&](std::string_view bytes) { return OnBody(bytes); };
  return connection->Post(path, body, handlers);
}

bool UpstreamStream::OnConnected(UpstreamConnection* connection) {
  {
    base::MutexLock lock(&mu_);
    if (state_ != State::kWaiting) return false;
    state_ = State::kStreaming;
    connection_ = connection;
  }
  if (!std::exchange(begun_, true)) sink_->Begin();
  return !sink_->cancelled();
}

bool UpstreamStream::OnHead(int status, std::string_view content_type) {
  is_event_stream_ = status == kOk && absl::StartsWithIgnoreCase(base::ToAbsl(content_type), "text/event-stream");
  content_type_ = ToMessage(content_type, kMaxContentTypeBytes);
  return !sink_->cancelled();
}

bool UpstreamStream::OnBody(std::string_view bytes) {
  if (sink_->cancelled()) return false;
  if (!is_event_stream_) {
    error_body_.append(bytes.substr(0, kMaxErrorBodyBytes - error_body_.size()));
    return error_body_.size() < kMaxErrorBodyBytes;
  }
  const bool was_complete = answer_.complete();
  answer_.Add(bytes);
  if (answer_.complete() && !was_complete) {
    base::MutexLock lock(&mu_);
    linger_until_ = SteadyClock::now() + absl::ToChronoNanoseconds(options_.linger);
  }
  return !answer_.failed();
}

bool UpstreamStream::OnExchangeOver(bool* again, bool* engine_stops) {
  base::MutexLock lock(&mu_);
  connection_ = nullptr;
  *engine_stops = engine_stops_;
  if (state_ == State::kEnded) return false;
  *again = *again && !cut_ && !sink_->cancelled();
  state_ = *again ? State::kWaiting : State::kEnded;
  return true;
}

void UpstreamStream::End(const UpstreamResult& result, bool engine_stops) {
  if (sink_->cancelled()) {
    answer_.Cancel();
  } else if (engine_stops) {
    answer_.Finish(Draining());
  } else {
    answer_.Finish(FailureOf(result));
  }
}

Failed UpstreamStream::FailureOf(const UpstreamResult& result) const {
  using End = UpstreamResult::End;
  if (result.end == End::kNoConnect) return Unavailable("no connection to the upstream");
  if (result.end == End::kUntrusted) return Unavailable("no TLS connection to the upstream");
  if (result.status != 0 && result.status != kOk) {
    return FailureOfStatus(result.status, ParseUpstreamError(error_body_), options_.answer.secret);
  }
  if (result.status == kOk && !is_event_stream_) {
    return {"engine_failed", absl::StrCat("the upstream answered with '", content_type_, "' and not with events"),
            false};
  }
  if (result.end == End::kSilent) return {"engine_timeout", "the upstream said nothing for too long", true};
  return Unavailable(result.status == 0 ? "the upstream closed the connection without an answer"
                                        : "the upstream's stream was cut");
}

void UpstreamStream::Watch(bool engine_stops) {
  const bool cancelled = sink_->cancelled();
  {
    base::MutexLock lock(&mu_);
    const bool lingers = SteadyClock::now() >= linger_until_;
    if (!cancelled && !engine_stops && !lingers) return;
    if (state_ == State::kEnded) return;
    engine_stops_ = engine_stops && !cancelled;
    if (state_ == State::kStreaming) {
      cut_ = true;
      connection_->Stop();
      return;
    }
    state_ = State::kEnded;
  }
  WakeSet wake;
  if (cancelled) {
    sink_->EndAll(FinishReason::kCancelled, &wake);
  } else {
    sink_->Fail(Draining(), &wake);
  }
}

}  // namespace runnel::inference
