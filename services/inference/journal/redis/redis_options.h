#pragma once

#include <cstddef>
#include <string>

#include "absl/time/time.h"
#include "services/inference/journal/redis/redis_url.h"

namespace runnel::inference {

// The settings of a RedisClient. All files are read again at each connect, so that passwords and certificates can be
// replaced while the process runs.
struct RedisOptions {
  RedisUrl url;
  std::string user = {};           // of an ACL; empty: the default user
  std::string password_file = {};  // line ends at its end are ignored; empty: no password
  std::string ca_file = {};        // PEM of the authorities that sign the servers; empty: the system's
  std::string cert_file = {};      // PEM of a certificate chain to present; empty: none
  std::string cert_key_file = {};  // PEM of its key

  // For the lookup of a server's name, TCP, TLS, AUTH and the questions to it. A Sentinel has at most 500 ms of it.
  absl::Duration connect_timeout = absl::Seconds(2);
  // Without progress of the replies that are awaited, the connection counts as lost. Only time in which the client's
  // thread could run counts, so that a process which was stopped does not give up a healthy connection.
  absl::Duration reply_timeout = absl::Seconds(3);
  // An idle connection is asked for a PING this often.
  absl::Duration ping_interval = absl::Seconds(2);
  // Between two attempts: doubles from the one to the other, times a random factor.
  absl::Duration min_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Seconds(2);

  // Commands without a reply; further ones are rejected.
  size_t max_pending_commands = 1 << 16;
  size_t max_pending_bytes = 64 << 20;
  // Of one reply; a server that sends a larger one is disconnected.
  size_t max_reply_bytes = 64 << 20;
  size_t max_reply_elements = 1 << 20;
};

}  // namespace runnel::inference
