#include "services/inference/engines/upstream/upstream_stream.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/prefetch.h"
#include "services/base/strings.h"
#include "services/inference/engines/upstream/upstream_failure.h"

namespace runnel::inference {
namespace {

constexpr int kOk = 200;
// Deltas without text that are read without delay, because the first text may follow.
constexpr uint64_t kPromptDeltas = 4;
constexpr int kRequestTimeout = 408;
constexpr size_t kMaxErrorBodyBytes = 64 << 10;
constexpr size_t kMaxContentTypeBytes = 64;
constexpr UpstreamStream::Clock::time_point kNever = UpstreamStream::Clock::time_point::max();

Failed NoneAvailable(absl::Duration retry_after) {
  Failed failed = Unavailable("no upstream is available");
  failed.server_error = ServerError{503, {}, {}, {}, retry_after};
  return failed;
}

Failed Draining() { return {"draining", "the service is stopping", true}; }
Failed TooLong() { return {"engine_timeout", "the output took longer than the service allows", false}; }

UpstreamStream::Clock::time_point After(absl::Duration timeout) {
  return UpstreamStream::Clock::now() + absl::ToChronoNanoseconds(timeout);
}

}  // namespace

UpstreamStream::UpstreamStream(UpstreamLoop* loop, std::unique_ptr<PreparedUpstream> prepared,
                               std::shared_ptr<EventSink> sink, const Options& options, prometheus::Counter* failovers,
                               OnOver over)
    : loop_(loop),
      prepared_(std::move(prepared)),
      sink_(std::move(sink)),
      options_(options),
      failovers_(failovers),
      over_(std::move(over)),
      total_deadline_(After(options.total_timeout)) {}

Awaitable<void> UpstreamStream::Run() {
  if (EndAtOnce()) co_return;
  const size_t model = prepared_->model;
  std::vector<size_t> tried;
  Failed failed;
  while (true) {
    CheckCancelled();
    const std::optional<size_t> upstream = co_await TakePlace(tried);
    place_ = upstream;
    if (!upstream.has_value()) {
      EndWithout(tried.empty() ? NoneAvailable(loop_->shared().set->RetryAfter(model)) : failed);
      co_return;
    }
    if (!tried.empty()) failovers_->Increment();
    tried.push_back(*upstream);
    Attempt attempt = co_await Try(*upstream);
    GiveBackPlace(attempt.verdict);
    if (attempt.over) {
      Over(output_->outcome());
      co_return;
    }
    failed = std::move(attempt.failed);
  }
}

bool UpstreamStream::EndAtOnce() {
  if (!prepared_->continuation.has_value() || !prepared_->continuation->ending.has_value()) return false;
  sink_->EndAll(*prepared_->continuation->ending, loop_->wake());
  Over("done");
  return true;
}

void UpstreamStream::FailInternally() noexcept {
  place_timer_ = nullptr;
  connection_ = nullptr;
  try {
    GiveBackPlace(UpstreamVerdict::kUnknown);
    sink_->Fail({"internal", "an internal error of the service", true}, loop_->wake());
    Over("internal");
  } catch (...) {
    spdlog::error("a generation could not be failed after an exception");
  }
}

void UpstreamStream::GiveBackPlace(UpstreamVerdict verdict) {
  if (!place_.has_value()) return;
  loop_->shared().set->GiveBack(*std::exchange(place_, std::nullopt), prepared_->model, verdict, retry_after_);
}

void UpstreamStream::Over(const std::string& outcome) {
  if (OnOver over = std::exchange(over_, nullptr)) over(outcome);
}

Awaitable<std::optional<size_t>> UpstreamStream::TakePlace(const std::vector<size_t>& tried) {
  while (!interrupted()) {
    const UpstreamSet::Place place = loop_->shared().set->Take(prepared_->model, tried);
    if (place.upstream.has_value() || !place.full) co_return place.upstream;
    Timer timer(*loop_->io(), kNever);
    place_timer_ = &timer;
    co_await timer.async_wait(kAwait);
    place_timer_ = nullptr;
  }
  co_return std::nullopt;
}

Awaitable<UpstreamStream::Attempt> UpstreamStream::Try(size_t upstream) {
  const UpstreamTarget& target = *loop_->shared().targets[upstream];
  std::unique_ptr<UpstreamConnection> connection = loop_->pool(upstream)->Take();
  bool may_repeat = connection != nullptr;
  while (true) {
    Reset();
    if (connection == nullptr) {
      connection = std::make_unique<UpstreamConnection>(loop_->io(), loop_->shared().resolver, &target);
    }
    connection_ = connection.get();
    const End end = co_await Exchange(connection.get(), target);
    connection_ = nullptr;
    // The server closed an idle connection just as it was used again, with or without telling why: a new connection is
    // enough.
    const bool was_closed = (end == End::kCut && !parser_->begun()) || status_ == kRequestTimeout;
    const bool repeat = std::exchange(may_repeat, false) && was_closed && !interrupted() && expired_ == Expired::kNone;
    if (repeat) {
      connection.reset();
      continue;
    }
    Attempt attempt{Judge(end), true, FailureOf(end)};
    const std::string& limit_field = prepared_->body.limit_field;
    if (!limit_field.empty() && !output_->reported() && !interrupted() && NamesField(attempt.failed, limit_field)) {
      prepared_->body.DropTokenLimit();
      prepared_->limit_dropped = true;
      if (end != End::kWhole || !parser_->keep_alive()) connection.reset();
      may_repeat = connection != nullptr;
      continue;
    }
    const bool others_may = attempt.verdict == UpstreamVerdict::kFaulty || attempt.verdict == UpstreamVerdict::kBusy;
    if (others_may && !output_->reported() && !interrupted()) {
      attempt.over = false;
    } else {
      EndOutput(attempt.failed);
    }
    // The rest of a response that ended before its output may still be on its way.
    const bool clean = end == End::kWhole && parser_->keep_alive() && (status_ != kOk || output_->complete());
    if (clean) loop_->pool(upstream)->Put(std::move(connection));
    co_return attempt;
  }
}

void UpstreamStream::Reset() {
  UpstreamOutput::Options options = options_.output;
  options.stop = prepared_->stop;
  if (prepared_->limit_dropped) options.max_tokens = prepared_->max_tokens.value_or(0);
  options.keep_first_failure = true;
  EventSink* sink = sink_.get();
  if (const auto& continuation = prepared_->continuation; continuation.has_value()) {
    if (continuation->replayed != nullptr) {
      sink = options.replay = &replay_.emplace(&prepared_->logged, continuation->usage, sink_.get());
    } else {
      options.logged_usage = continuation->usage;
      options.logged_tail = continuation->tail;
    }
  }
  output_.emplace(prepared_->choice_count, options, sink);
  parser_.emplace(UpstreamResponseParser::Limits{}, static_cast<UpstreamResponseParser::Handler*>(this));
  expired_ = Expired::kNone;
  io_deadline_ = token_deadline_ = linger_deadline_ = kNever;
  status_ = 0;
  malformed_ = false;
  is_event_stream_ = false;
  content_type_.clear();
  error_body_.clear();
  retry_after_ = absl::ZeroDuration();
}

Awaitable<UpstreamStream::End> UpstreamStream::Exchange(UpstreamConnection* connection, const UpstreamTarget& target) {
  io_deadline_ = After(target.options().connect_timeout);
  const UpstreamConnection::Connected connected = co_await connection->Connect();
  if (connected == UpstreamConnection::Connected::kNo) co_return End::kNoConnect;
  if (connected == UpstreamConnection::Connected::kUntrusted) co_return End::kUntrusted;
  token_deadline_ = After(options_.first_token_timeout);
  if (!std::exchange(begun_, true)) sink_->Begin();
  CheckCancelled();
  if (interrupted()) co_return End::kUnwanted;
  io_deadline_ = After(target.options().write_timeout);
  // A server that rejects a request may close its side before it has read all: its response is read all the same.
  const std::string request = target.Request(prepared_->path, prepared_->body.json);
  co_await connection->Write(request);
  const End end = co_await ReadResponse(connection, target);
  co_return end;
}

Awaitable<UpstreamStream::End> UpstreamStream::ReadResponse(UpstreamConnection* connection,
                                                            const UpstreamTarget& target) {
  using State = UpstreamResponseParser::State;
  State state = State::kReading;
  // False at the end of the response.
  const auto take = [&](std::string_view bytes) {
    io_deadline_ = kNever;
    state = parser_->Feed(bytes);
    malformed_ = state == State::kFailed;
    return state == State::kReading;
  };
  io_deadline_ = After(target.options().first_byte_timeout);
  bool open = true;
  // The first output without delay, the rest at the loop's ticks; so also reasoning, which is never reported.
  while (open && state == State::kReading && !output_->reported() && output_->progress() < kPromptDeltas) {
    const size_t size = co_await connection->Read(*loop_->buffer());
    open = size > 0;
    if (open) take({loop_->buffer()->data(), size});
  }
  if (open && state == State::kReading) {
    const UpstreamConnection::Touched touched = {base::MemoryOf(*this), sink_->memory()};
    open = co_await connection->ReadPaced(loop_->poller(), *loop_->buffer(), touched, take);
  }
  if (!open && (interrupted() || expired_ != Expired::kNone)) co_return End::kCut;
  if (!open) state = parser_->OnEof();
  switch (state) {
    case State::kDone:
      co_return End::kWhole;
    case State::kUnwanted:
      co_return End::kUnwanted;
    default:
      co_return End::kCut;
  }
}

bool UpstreamStream::OnHead(const UpstreamHead& head) {
  status_ = head.status;
  is_event_stream_ =
      head.status == kOk && absl::StartsWithIgnoreCase(base::ToAbsl(head.content_type), "text/event-stream");
  content_type_ = ToMessage(head.content_type, kMaxContentTypeBytes);
  if (head.status != kOk) retry_after_ = ParseRetryAfter(head.retry_after);
  return !sink_->cancelled();
}

bool UpstreamStream::OnBody(std::string_view bytes) {
  if (sink_->cancelled()) return false;
  if (!is_event_stream_) {
    error_body_.append(bytes.substr(0, kMaxErrorBodyBytes - error_body_.size()));
    return error_body_.size() < kMaxErrorBodyBytes;
  }
  const bool was_complete = output_->complete();
  const uint64_t progress = output_->progress();
  output_->Add(bytes, loop_->wake());
  if (output_->progress() != progress) {
    token_deadline_ = After(options_.next_token_timeout);
    if (output_->complete() && !was_complete) {
      linger_deadline_ = After(options_.linger);
      token_deadline_ = kNever;
    }
  }
  return !output_->failed() && !output_->cut_short();
}

void UpstreamStream::Interrupt(Reason reason) {
  if (interrupted()) return;
  reason_ = reason;
  if (place_timer_ != nullptr) place_timer_->cancel();
  if (connection_ != nullptr) connection_->Close();
}

void UpstreamStream::CheckDeadlines(Clock::time_point now) {
  if (now >= total_deadline_) return Interrupt(Reason::kTooLong);
  if (connection_ == nullptr || expired_ != Expired::kNone) return;
  if (now >= linger_deadline_) {
    expired_ = Expired::kLinger;
  } else if (now >= token_deadline_) {
    expired_ = Expired::kToken;
  } else if (now >= io_deadline_) {
    expired_ = Expired::kIo;
  } else {
    return;
  }
  connection_->Close();
}

void UpstreamStream::EndOutput(const Failed& failed) {
  if (reason_ == Reason::kCancelled || sink_->cancelled()) {
    output_->Cancel(loop_->wake());
  } else {
    output_->Finish(InterruptedOr(failed), loop_->wake());
  }
  if (!output_->kept_failure().has_value()) return;
  if (sink_->cancelled()) {
    sink_->EndAll(FinishReason::kCancelled, loop_->wake());
  } else {
    const Failed& failed_with = *output_->kept_failure();
    sink_->Fail(prepared_->continuation.has_value() ? FailureOfContinuation(failed_with) : failed_with, loop_->wake());
  }
}

Failed UpstreamStream::InterruptedOr(const Failed& failed) const {
  switch (reason_) {
    case Reason::kStopping:
      return Draining();
    case Reason::kTooLong:
      return TooLong();
    default:
      return failed;
  }
}

void UpstreamStream::EndWithout(const Failed& failed) {
  if (reason_ == Reason::kCancelled) {
    sink_->EndAll(FinishReason::kCancelled, loop_->wake());
    return Over("cancelled");
  }
  const Failed reported = InterruptedOr(failed);
  sink_->Fail(reported, loop_->wake());
  Over(reported.code);
}

UpstreamVerdict UpstreamStream::Judge(End end) const {
  if (output_->complete()) return UpstreamVerdict::kHealthy;
  if (interrupted()) return UpstreamVerdict::kUnknown;
  if (expired_ != Expired::kNone) return UpstreamVerdict::kFaulty;
  if (output_->failed()) return output_->verdict();
  if (status_ != 0 && status_ != kOk) return VerdictOfStatus(status_, retry_after_);
  // Only a cancellation can cause this.
  if (end == End::kUnwanted && sink_->cancelled()) return UpstreamVerdict::kUnknown;
  return UpstreamVerdict::kFaulty;
}

Failed UpstreamStream::FailureOf(End end) const {
  if (output_->kept_failure().has_value()) return *output_->kept_failure();
  if (expired_ == Expired::kToken) return {"engine_timeout", "the upstream sent no token in time", true};
  if (end == End::kNoConnect) return Unavailable("no connection to the upstream");
  if (end == End::kUntrusted) return Unavailable("no TLS connection to the upstream");
  if (malformed_) {
    return {"engine_failed", absl::StrCat("the upstream's response is malformed: ", base::ToAbsl(parser_->error())),
            false};
  }
  if (status_ != 0 && status_ != kOk) {
    return FailureOfStatus(status_, ParseUpstreamError(error_body_), options_.output.secret, retry_after_);
  }
  if (status_ == kOk && !is_event_stream_) {
    return {"engine_failed",
            absl::StrCat("the upstream responded with '", content_type_, "' instead of an event stream"), false};
  }
  if (expired_ == Expired::kIo) return {"engine_timeout", "the upstream sent nothing in time", true};
  return Unavailable(status_ == 0 ? "the upstream closed the connection without a response"
                                  : "the upstream's stream was cut");
}

}  // namespace runnel::inference
