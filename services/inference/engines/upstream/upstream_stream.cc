#include "services/inference/engines/upstream/upstream_stream.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/strings.h"
#include "services/inference/engines/upstream/upstream_failure.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

constexpr int kOk = 200;
constexpr size_t kMaxErrorBodyBytes = 64 << 10;
constexpr size_t kMaxContentTypeBytes = 64;

Failed Draining() { return {"draining", "the service is stopping", true}; }

}  // namespace

UpstreamStream::UpstreamStream(std::unique_ptr<PreparedUpstream> prepared, std::shared_ptr<EventSink> sink,
                               const Options& options)
    : options_(options), prepared_(std::move(prepared)), sink_(std::move(sink)) {}

std::string UpstreamStream::Run(UpstreamSet* upstreams, prometheus::Counter* failovers) {
  std::vector<size_t> tried;
  Failed failed = Unavailable("no upstream is available");
  while (true) {
    const auto upstream = upstreams->Take(tried, [this] { return HasEnded(); });
    if (!upstream.has_value()) return EndWithout(std::move(failed));
    if (!tried.empty()) failovers->Increment();
    tried.push_back(*upstream);
    Attempt attempt = Try(upstreams->pool(*upstream));
    upstreams->GiveBack(*upstream, attempt.verdict, retry_after_);
    if (!attempt.outcome.empty()) return attempt.outcome;
    failed = std::move(attempt.failed);
  }
}

UpstreamStream::Attempt UpstreamStream::Try(UpstreamConnectionPool* pool) {
  std::unique_ptr<UpstreamConnection> connection = pool->Take(false);
  bool may_try_again = connection->used();
  while (true) {
    Reset();
    const UpstreamResult result = Exchange(prepared_->path, prepared_->body, connection.get());
    Attempt attempt{Judge(result), {}, {}};
    // The server closed an idle connection just as it was used again: no byte of the response has arrived, so a new
    // connection is enough.
    attempt.failed = FailureOf(result);
    const bool again = std::exchange(may_try_again, false) && result.end == UpstreamResult::End::kCut &&
                       result.status == 0 && attempt.failed.code == Unavailable("").code;
    const bool others_may = !answer_->reported() &&
                            (attempt.verdict == UpstreamVerdict::kFaulty || attempt.verdict == UpstreamVerdict::kBusy);
    bool waits = again || others_may;
    bool engine_stops = false;
    if (!OnExchangeOver(&waits, &engine_stops)) {
      attempt.outcome = engine_stops ? Draining().code : "cancelled";
      return attempt;
    }
    if (waits && again) {
      connection = pool->Take(true);
      continue;
    }
    if (!waits) {
      End(result, engine_stops);
      attempt.outcome = answer_->outcome();
    }
    if (connection->used()) pool->Put(std::move(connection));
    return attempt;
  }
}

void UpstreamStream::Reset() {
  UpstreamAnswer::Options options = options_.answer;
  options.keep_first_failure = true;
  answer_.emplace(prepared_->choice_count, options, sink_.get());
  is_event_stream_ = false;
  content_type_.clear();
  error_body_.clear();
  retry_after_ = absl::ZeroDuration();
}

bool UpstreamStream::HasEnded() {
  base::MutexLock lock(&mu_);
  return state_ == State::kEnded;
}

std::string UpstreamStream::EndWithout(Failed failed) {
  {
    base::MutexLock lock(&mu_);
    if (state_ == State::kEnded) return engine_stops_ ? Draining().code : "cancelled";
    state_ = State::kEnded;
  }
  WakeSet wake;
  std::string outcome = failed.code;
  sink_->Fail(std::move(failed), &wake);
  return outcome;
}

UpstreamResult UpstreamStream::Exchange(std::string_view path, std::string_view body, UpstreamConnection* connection) {
  UpstreamConnection::Handlers handlers;
  handlers.on_connected = [&] { return OnConnected(connection); };
  handlers.on_head = [&](int status, const UpstreamConnection::Head& head) { return OnHead(status, head); };
  handlers.on_body = [&](std::string_view bytes) { return OnBody(bytes); };
  return connection->Post(path, body, handlers);
}

bool UpstreamStream::OnConnected(UpstreamConnection* connection) {
  {
    base::MutexLock lock(&mu_);
    if (state_ != State::kWaiting) return false;
    state_ = State::kStreaming;
    connection_ = connection;
    timed_out_ = false;
    token_until_ = SteadyClock::now() + absl::ToChronoNanoseconds(options_.first_token_timeout);
  }
  if (!std::exchange(begun_, true)) sink_->Begin();
  return !sink_->cancelled();
}

bool UpstreamStream::OnHead(int status, const UpstreamConnection::Head& head) {
  is_event_stream_ = status == kOk && absl::StartsWithIgnoreCase(head.content_type, "text/event-stream");
  content_type_ = ToMessage(head.content_type, kMaxContentTypeBytes);
  if (status != kOk) retry_after_ = ParseRetryAfter(head.retry_after);
  return !sink_->cancelled();
}

bool UpstreamStream::OnBody(std::string_view bytes) {
  if (sink_->cancelled()) return false;
  if (!is_event_stream_) {
    error_body_.append(bytes.substr(0, kMaxErrorBodyBytes - error_body_.size()));
    return error_body_.size() < kMaxErrorBodyBytes;
  }
  const bool was_complete = answer_->complete();
  const uint64_t progress = answer_->progress();
  answer_->Add(bytes);
  if (answer_->progress() != progress) {
    base::MutexLock lock(&mu_);
    token_until_ = SteadyClock::now() + absl::ToChronoNanoseconds(options_.next_token_timeout);
    if (answer_->complete() && !was_complete) {
      linger_until_ = SteadyClock::now() + absl::ToChronoNanoseconds(options_.linger);
      token_until_ = SteadyClock::time_point::max();
    }
  }
  return !answer_->failed();
}

bool UpstreamStream::OnExchangeOver(bool* again, bool* engine_stops) {
  base::MutexLock lock(&mu_);
  connection_ = nullptr;
  token_until_ = SteadyClock::time_point::max();
  *engine_stops = engine_stops_;
  if (state_ == State::kEnded) return false;
  *again = *again && !cut_ && !sink_->cancelled();
  state_ = *again ? State::kWaiting : State::kEnded;
  return true;
}

void UpstreamStream::End(const UpstreamResult& result, bool engine_stops) {
  if (sink_->cancelled()) {
    answer_->Cancel();
  } else if (engine_stops) {
    answer_->Finish(Draining());
  } else {
    answer_->Finish(FailureOf(result));
  }
  if (!answer_->kept_failure().has_value()) return;
  WakeSet wake;
  if (sink_->cancelled()) {
    sink_->EndAll(FinishReason::kCancelled, &wake);
  } else {
    sink_->Fail(*answer_->kept_failure(), &wake);
  }
}

UpstreamVerdict UpstreamStream::Judge(const UpstreamResult& result) {
  using End = UpstreamResult::End;
  if (answer_->complete()) return UpstreamVerdict::kHealthy;
  {
    base::MutexLock lock(&mu_);
    if (cut_) return UpstreamVerdict::kUnknown;
    if (timed_out_) return UpstreamVerdict::kFaulty;
  }
  if (answer_->failed()) return answer_->verdict();
  if (result.status != 0 && result.status != kOk) return VerdictOfStatus(result.status);
  // Only our own cancellation can cause this.
  if (result.end == End::kUnwanted && sink_->cancelled()) return UpstreamVerdict::kUnknown;
  return UpstreamVerdict::kFaulty;
}

Failed UpstreamStream::FailureOf(const UpstreamResult& result) {
  using End = UpstreamResult::End;
  if (answer_->kept_failure().has_value()) return *answer_->kept_failure();
  {
    base::MutexLock lock(&mu_);
    if (timed_out_) return {"engine_timeout", "the upstream sent no token in time", true};
  }
  if (result.end == End::kNoConnect) return Unavailable("no connection to the upstream");
  if (result.end == End::kUntrusted) return Unavailable("no TLS connection to the upstream");
  if (result.status != 0 && result.status != kOk) {
    return FailureOfStatus(result.status, ParseUpstreamError(error_body_), options_.answer.secret);
  }
  if (result.status == kOk && !is_event_stream_) {
    return {"engine_failed",
            absl::StrCat("the upstream responded with '", content_type_, "' instead of an event stream"), false};
  }
  if (result.end == End::kSilent) return {"engine_timeout", "the upstream sent nothing in time", true};
  return Unavailable(result.status == 0 ? "the upstream closed the connection without a response"
                                        : "the upstream's stream was cut");
}

UpstreamStream::SteadyClock::time_point UpstreamStream::Watch(bool engine_stops) {
  const bool cancelled = sink_->cancelled();
  {
    base::MutexLock lock(&mu_);
    const auto now = SteadyClock::now();
    const bool lingers = now >= linger_until_;
    if (state_ == State::kEnded) return SteadyClock::time_point::max();
    if (!cancelled && !engine_stops && !lingers && now < token_until_) return std::min(linger_until_, token_until_);
    engine_stops_ = engine_stops && !cancelled;
    if (state_ == State::kStreaming) {
      timed_out_ = !cancelled && !engine_stops && !lingers;
      cut_ = !timed_out_;
      connection_->Stop();
      return SteadyClock::time_point::max();
    }
    state_ = State::kEnded;
  }
  WakeSet wake;
  if (cancelled) {
    sink_->EndAll(FinishReason::kCancelled, &wake);
  } else {
    sink_->Fail(Draining(), &wake);
  }
  return SteadyClock::time_point::max();
}

}  // namespace runnel::inference
