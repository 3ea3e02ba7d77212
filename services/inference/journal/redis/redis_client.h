#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/inference/journal/redis/redis_failure.h"
#include "services/inference/journal/redis/redis_options.h"
#include "services/inference/journal/redis/redis_reply.h"

namespace boost::asio {
class io_context;
}

namespace runnel::inference {

// What a server says of itself.
struct RedisServerInfo {
  std::string address;        // host:port that the connection leads to
  std::string local_address;  // of this end of the connection, without a port
  bool valkey = false;
  std::string version;  // of the server; for Valkey its own version
  std::string run_id;   // another one after each restart
  uint64_t maxmemory = 0;
  std::string maxmemory_policy;  // anything but "noeviction" may lose logs
};

// A connection to one Redis or Valkey, or to the master that Sentinels name, which is made again whenever it is lost.
// It has a thread of its own, with an event loop that its user shares: nothing of it is used on other threads, except
// where it is said.
//
// Commands are pipelined. All that are sent in one turn of the loop are written together.
class RedisClient {
 public:
  // Called on the client's thread. Must outlive the client.
  class Handler {
   public:
    virtual ~Handler() = default;
    // Connected to a master that can be used; Send works from here on.
    virtual void OnUp(const RedisServerInfo& info) = 0;
    // The connection was lost: the callbacks of everything pending have been called. Or an attempt to connect has
    // failed: called for each one, also if it is still down. The client logs a line whenever the reason changes.
    virtual void OnDown(const RedisFailure& failure) = 0;
  };

  // InvalidArgument if the options cannot work, or a file that they name cannot be used. Does not connect.
  static absl::StatusOr<std::unique_ptr<RedisClient>> Create(RedisOptions options, Handler* handler);
  // Stops.
  ~RedisClient();
  RedisClient(const RedisClient&) = delete;
  RedisClient& operator=(const RedisClient&) = delete;

  // Starts the thread, which connects. Call it once.
  void Start();
  // Ends the connection and the thread: fails what is pending with Cancelled, and calls neither callbacks nor the
  // handler once it has returned. Functions that were posted, and have not run, are dropped, and so are commands that
  // the last callbacks send. Idempotent; on any thread but the client's.
  void Stop();

  // Runs `function` on the client's thread. Callable on any thread, before Start and after Stop too.
  void Post(absl::AnyInvocable<void()> function);
  // The loop of the client's thread, for timers, which must be destroyed before the client.
  boost::asio::io_context& io();

  // The reply, which may be an error of the server (RedisReply::is_error). Unavailable: the connection was lost, and
  // whether the command was executed is not known; or there was none. ResourceExhausted: too much is pending, and the
  // command was not sent. Cancelled: by Stop.
  using ReplyCallback = absl::AnyInvocable<void(absl::StatusOr<RedisReply>)>;
  // Sends a command. `done` is called exactly once, never within this call, and in the order of the commands. `args`
  // are copied. An error of the server that shows that it is not, or no longer, a usable master (READONLY, LOADING,
  // MASTERDOWN, NOAUTH) is passed to `done`; then the connection is given up.
  void Send(std::span<const std::string_view> args, ReplyCallback done);
  void Send(std::initializer_list<std::string_view> args, ReplyCallback done) {
    Send(std::span(args.begin(), args.size()), std::move(done));
  }

  // Between OnUp and OnDown.
  bool up() const;
  // Commands without a reply, and their bytes.
  size_t pending_commands() const;
  size_t pending_bytes() const;

 private:
  class Impl;

  explicit RedisClient(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::inference
