#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "absl/functional/function_ref.h"
#include "services/base/host_port.h"
#include "services/inference/journal/redis/redis_client.h"
#include "services/inference/journal/redis/redis_net.h"
#include "services/inference/journal/redis/redis_resolver.h"
#include "services/inference/journal/redis/redis_socket.h"
#include "services/inference/journal/redis/reply_reader.h"

namespace runnel::inference {

// A master that can be used: it was asked for its version and role.
struct RedisConnected {
  std::unique_ptr<RedisSocket> socket;
  std::unique_ptr<RedisReplyReader> reader;
  RedisServerInfo info;
};

// Appends a command in Redis's protocol.
void AppendCommand(std::span<const std::string_view> args, std::string* bytes);

// Makes connections: looks names up, asks the Sentinels, and checks what it has reached. Confined to the loop's thread.
class RedisConnector {
 public:
  // Both must outlive it.
  RedisConnector(net::io_context* io, const RedisOptions* options);

  using Result = std::variant<RedisConnected, RedisFailure>;
  // One attempt. One at a time.
  Awaitable<Result> Connect();
  // Ends the attempt; it fails with kStopped, and so do later ones.
  void Stop();

 private:
  // What one attempt reads from files.
  struct Secrets {
    std::string password;
    std::shared_ptr<net::ssl::context> tls;
  };
  using OnReply = absl::FunctionRef<std::optional<RedisFailure>(RedisReply reply)>;

  // The address of the master, from the first Sentinel that replies with one.
  Awaitable<std::optional<RedisFailure>> AskSentinels(const Secrets& secrets, base::HostPort* master);
  Awaitable<std::optional<RedisFailure>> AskSentinel(const base::HostPort& sentinel, const Secrets& secrets,
                                                     base::HostPort* master);
  Awaitable<std::optional<RedisFailure>> AskMaster(const base::HostPort& server, const Secrets& secrets,
                                                   RedisConnected* connected);
  // Connects socket_, with TLS if the options say so.
  Awaitable<std::optional<RedisFailure>> Open(const base::HostPort& server, const Secrets& secrets);
  // Writes commands and passes `count` replies to `on_reply`, until it returns a failure.
  Awaitable<std::optional<RedisFailure>> Exchange(std::string commands, size_t count, OnReply on_reply);

  absl::StatusOr<Secrets> ReadSecrets() const;
  void AppendAuth(const Secrets& secrets, std::string* commands) const;
  // Until EndDeadline, everything that is awaited ends after `timeout`.
  void BeginDeadline(absl::Duration timeout);
  RedisFailure Failure(RedisFailure::Reason reason, std::string_view text) const;
  RedisFailure FailureOf(const ErrorCode& error) const;

  net::io_context* const io_;
  const RedisOptions* const options_;
  RedisResolver resolver_;
  Timer deadline_;
  std::unique_ptr<RedisSocket> socket_;
  std::unique_ptr<RedisReplyReader> reader_;
  std::string server_;         // that is being asked, for messages
  size_t first_sentinel_ = 0;  // the last one that replied
  bool timed_out_ = false;
  bool stopped_ = false;
};

// Reads a password: the content of a file without the line ends at its end. InvalidArgument if it cannot be read, is
// empty or too long; empty if `file` is.
absl::StatusOr<std::string> ReadPassword(const std::string& file);

}  // namespace runnel::inference
