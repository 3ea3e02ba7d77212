#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "services/inference/journal/redis/redis_connector.h"
#include "services/inference/journal/redis/server_info.h"

namespace runnel::inference {

// The commands of one connection that is open, from when the connector made it until it is lost. Confined to the loop's
// thread. In a shared_ptr, because what it awaits holds it.
class RedisSession : public std::enable_shared_from_this<RedisSession> {
 public:
  using ReplyCallback = RedisClient::ReplyCallback;

  // `io` and `options` must outlive it.
  RedisSession(net::io_context* io, const RedisOptions* options, RedisConnected connected);

  const RedisServerInfo& info() const { return info_; }

  // Reads replies until the connection is lost, which ends everything that it awaits; then Drop.
  Awaitable<RedisFailure> Serve();
  // False if too much is pending; `done` was not taken then.
  bool Send(std::span<const std::string_view> args, ReplyCallback* done);
  // Calls back everything pending, with an error.
  void Drop(const absl::Status& status);
  // Ends the connection: Serve returns `failure`, unless it ends for another reason first.
  void Lose(RedisFailure failure);

  size_t pending_commands() const { return pending_.size(); }
  size_t pending_bytes() const { return pending_bytes_; }

 private:
  struct Pending {
    ReplyCallback done;  // null: a PING of the session
    size_t bytes;
  };

  void Append(std::span<const std::string_view> args, ReplyCallback done);
  // Writes what has been sent, unless a write is under way.
  void Flush();
  void OnWritten(const ErrorCode& error);
  // Calls back the replies that are complete.
  void TakeReplies();
  void TakeReply(RedisReply reply);
  // Runs from time to time: finds a server that does not reply, and sends PINGs.
  void Tick();
  RedisFailure Failure(RedisFailure::Reason reason, std::string_view text) const;

  net::io_context* const io_;
  const RedisOptions* const options_;
  const std::unique_ptr<RedisSocket> socket_;
  const std::unique_ptr<RedisReplyReader> reader_;
  const RedisServerInfo info_;
  const std::chrono::nanoseconds tick_;
  Timer timer_;
  SteadyClock::time_point last_tick_;

  std::deque<Pending> pending_;
  size_t pending_bytes_ = 0;
  std::string unsent_;   // sent in this turn, or during the write
  std::string writing_;  // by the write that is under way
  bool flushing_ = false;
  std::vector<char> buffer_;
  size_t bytes_since_reply_ = 0;
  // Time without progress while replies are awaited, or time without commands.
  std::chrono::nanoseconds silence_{0};
  std::optional<RedisFailure> failure_;
};

}  // namespace runnel::inference
