#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "services/inference/journal/redis/redis_url.h"

namespace runnel::inference {

// The settings of a journal. services/inference/options.cc says which flag sets each field, and describes the flags.
struct LogOptions {
  std::optional<RedisUrl> store;  // absent: logs are in memory only
  std::string user;               // empty: the server's default user
  std::string password_file;      // the password, without the line ends at its end; read at each connect; empty: none
  std::string ca_file;            // of the server's certificate; empty: the system's authorities
  std::string cert_file;          // to present to the server; empty: none
  std::string cert_key_file;
  std::string key_file;  // keys that values are encrypted with; empty: they are stored as they are
  std::string prefix = "rnl";
  absl::Duration wait = absl::Milliseconds(100);
  bool required = false;
  absl::Duration lease = absl::Milliseconds(700);
  uint32_t min_replicas = 0;
  absl::Duration max_age = absl::Hours(24);        // of the stored log of a generation that runs
  size_t max_bytes = size_t{4} << 20;              // of the stored log of one generation
  absl::Duration retention = absl::Minutes(10);    // of the stored log of a generation that has ended
  absl::Duration tombstone_age = absl::Hours(24);  // after that
  std::string address;  // host:port of this replica's gRPC port, for other replicas; empty: see grpc_port
  // Without an address: the local address of the connection to the store, and this port.
  int grpc_port = 0;
};

}  // namespace runnel::inference
