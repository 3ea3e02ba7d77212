#include "services/inference/journal/redis/redis_session.h"

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

using Reason = RedisFailure::Reason;

constexpr size_t kReadBytes = 64 << 10;
// A buffer of commands that has grown beyond this is given back.
constexpr size_t kKeptBytes = 1 << 20;
// So many bytes of a reply that is not complete count as progress. A server that sends single bytes makes none.
constexpr size_t kProgressBytes = 64 << 10;

std::chrono::nanoseconds TickOf(const RedisOptions& options) {
  const absl::Duration shortest = std::min(options.reply_timeout, options.ping_interval) / 8;
  return absl::ToChronoNanoseconds(std::clamp(shortest, absl::Milliseconds(5), absl::Milliseconds(250)));
}

}  // namespace

RedisSession::RedisSession(net::io_context* io, const RedisOptions* options, RedisConnected connected)
    : io_(io),
      options_(options),
      socket_(std::move(connected.socket)),
      reader_(std::move(connected.reader)),
      info_(std::move(connected.info)),
      tick_(TickOf(*options)),
      timer_(*io),
      buffer_(kReadBytes) {}

RedisFailure RedisSession::Failure(Reason reason, std::string_view text) const {
  return {reason, absl::UnavailableError(absl::StrCat("Redis at ", info_.address, ": ", base::ToAbsl(text)))};
}

Awaitable<RedisFailure> RedisSession::Serve() {
  last_tick_ = SteadyClock::now();
  Tick();
  TakeReplies();
  while (!failure_.has_value()) {
    const auto [error, size] = co_await socket_->Read(buffer_);
    if (failure_.has_value()) break;
    if (error) {
      const Reason reason = ReasonOf(error);
      const bool tls = reason == Reason::kTls && !socket_->tls_error().empty();
      Lose(Failure(reason, tls                          ? socket_->tls_error()
                           : reason == Reason::kTimeout ? "it does not reply in time"
                                                        : "it closed the connection"));
      break;
    }
    bytes_since_reply_ += size;
    if (bytes_since_reply_ >= kProgressBytes) {
      bytes_since_reply_ = 0;
      silence_ = {};
    }
    reader_->Feed(std::string_view(buffer_.data(), size));
    TakeReplies();
  }
  co_return *failure_;
}

bool RedisSession::Send(std::span<const std::string_view> args, ReplyCallback* done) {
  size_t bytes = 0;
  for (const std::string_view arg : args) bytes += arg.size();
  if (failure_.has_value() || pending_.size() >= options_->max_pending_commands ||
      bytes > options_->max_pending_bytes - std::min(pending_bytes_, options_->max_pending_bytes)) {
    return false;
  }
  Append(args, std::move(*done));
  return true;
}

void RedisSession::Append(std::span<const std::string_view> args, ReplyCallback done) {
  const size_t before = unsent_.size();
  AppendCommand(args, &unsent_);
  // The silence of the server begins now, which the next tick rounds up.
  if (pending_.empty()) silence_ = -tick_;
  pending_.push_back({std::move(done), unsent_.size() - before});
  pending_bytes_ += unsent_.size() - before;
  if (before > 0 || flushing_) return;
  flushing_ = true;
  net::post(*io_, [self = shared_from_this()] { self->Flush(); });
}

void RedisSession::Flush() {
  if (failure_.has_value() || unsent_.empty()) {
    flushing_ = false;
    return;
  }
  writing_.swap(unsent_);
  socket_->Write(writing_, [self = shared_from_this()](const ErrorCode& error, size_t) { self->OnWritten(error); });
}

void RedisSession::OnWritten(const ErrorCode& error) {
  writing_.clear();
  if (writing_.capacity() > kKeptBytes) writing_ = std::string();
  // Serve reads why: the server may have sent an error before it closed.
  if (error) return;
  Flush();
}

void RedisSession::TakeReplies() {
  while (!failure_.has_value()) {
    switch (reader_->Read()) {
      case RedisReplyReader::Next::kReply:
        TakeReply(reader_->reply());
        break;
      case RedisReplyReader::Next::kMore:
        return;
      case RedisReplyReader::Next::kError:
        return Lose(Failure(Reason::kNotRedis, reader_->error()));
    }
  }
}

void RedisSession::TakeReply(RedisReply reply) {
  const std::optional<ServerProblem> problem = reply.is_error() ? ProblemOf(reply) : std::nullopt;
  // A user may lack the right to one command only.
  const bool fatal = problem.has_value() && reply.error_code() != "NOPERM";
  if (pending_.empty()) {
    return Lose(fatal ? Failure(problem->reason, problem->text)
                      : Failure(Reason::kNotRedis, "it sends replies to nothing"));
  }
  Pending pending = std::move(pending_.front());
  pending_.pop_front();
  pending_bytes_ -= pending.bytes;
  bytes_since_reply_ = 0;
  silence_ = {};
  if (pending.done) pending.done(reply);
  if (fatal) Lose(Failure(problem->reason, problem->text));
}

void RedisSession::Tick() {
  if (failure_.has_value()) return;
  const SteadyClock::time_point now = SteadyClock::now();
  // A longer gap is time in which this thread did not run: what has arrived meanwhile is read after this.
  silence_ += std::min<std::chrono::nanoseconds>(now - last_tick_, 2 * tick_);
  last_tick_ = now;
  const bool waiting = !pending_.empty();
  if (waiting && silence_ >= absl::ToChronoNanoseconds(options_->reply_timeout)) {
    return Lose(Failure(Reason::kTimeout, "it does not reply in time"));
  }
  if (!waiting && silence_ >= absl::ToChronoNanoseconds(options_->ping_interval)) {
    Append(std::array<std::string_view, 1>{"PING"}, nullptr);
  }
  timer_.expires_after(tick_);
  timer_.async_wait([self = shared_from_this()](const ErrorCode& error) {
    if (!error) self->Tick();
  });
}

void RedisSession::Lose(RedisFailure failure) {
  if (failure_.has_value()) return;
  failure_ = std::move(failure);
  socket_->Close();
  timer_.cancel();
}

void RedisSession::Drop(const absl::Status& status) {
  while (!pending_.empty()) {
    Pending pending = std::move(pending_.front());
    pending_.pop_front();
    pending_bytes_ -= pending.bytes;
    if (pending.done) pending.done(status);
  }
}

}  // namespace runnel::inference
