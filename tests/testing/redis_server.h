#pragma once

#include <sys/types.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace runnel::testing {

enum class RedisKind { kRedis, kValkey };

// A real redis-server or Valkey on a free port of 127.0.0.1, with a temporary directory. It ends with this object, and
// with the test's main thread, which must start it. Calls fail after 10 s, which only bounds a failure.
class RedisServer {
 public:
  struct Options {
    RedisKind kind = RedisKind::kRedis;
    std::string password = {};            // of the default user
    std::vector<std::string> users = {};  // lines of an ACL file, for example "user runnel on >secret ~rnl:* +get"
    // TLS with these PEM files instead of plain connections; with a CA, clients need a certificate of it. Redis only.
    std::string cert_file = {};
    std::string key_file = {};
    std::string client_ca_file = {};
    bool aof = false;                      // appendonly, fsync every second
    int replica_of = 0;                    // port of the master; 0: it is one
    std::string maxmemory = {};            // for example "8mb"
    int sentinel_of = 0;                   // port of the master "main" that it watches as a Sentinel, on its own
    std::vector<std::string> config = {};  // further lines of the configuration
  };

  // The path of the server's program; empty if it is not installed. Redis: redis-server on PATH, or $RUNNEL_REDIS.
  // Valkey: $RUNNEL_VALKEY, which deploy/local/env.sh sets.
  static std::string Program(RedisKind kind);

  static absl::StatusOr<std::unique_ptr<RedisServer>> Start(Options options);
  ~RedisServer();
  RedisServer(const RedisServer&) = delete;
  RedisServer& operator=(const RedisServer&) = delete;

  int port() const { return port_; }
  // redis://127.0.0.1:port, or rediss:// with TLS.
  std::string url() const;

  // SIGKILL; what was not written is lost.
  void Kill();
  // Ends it as an administrator does: it saves its data first.
  void Shutdown();
  // Starts it again on the same port, with what Kill or Shutdown has left.
  absl::Status Restart();
  // SIGSTOP and SIGCONT.
  void Stop();
  void Continue();

  // Runs a command as the default user, over a socket of its own that needs no TLS, and returns the reply as it came,
  // for example "+OK\r\n"; empty if it does not reply.
  std::string Run(std::initializer_list<std::string_view> args);

 private:
  explicit RedisServer(Options options) : options_(std::move(options)) {}

  absl::Status Launch();
  bool WaitUntilReady();
  void WriteConfig() const;
  void End(int signal);
  std::string LogTail() const;

  const Options options_;
  std::string dir_;
  int port_ = 0;
  pid_t pid_ = -1;
};

}  // namespace runnel::testing
