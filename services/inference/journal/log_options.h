#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/host_port.h"

namespace runnel::inference {

// Where the logs of generations are kept, as --log names it.
struct LogTarget {
  enum class Kind {
    kMemory,    // memory
    kServer,    // redis://host:port[/db]: one Redis or Valkey server
    kSentinel,  // redis+sentinel://host:port,host:port/master-name[/db]: the sentinels that name the server
  };
  Kind kind = Kind::kMemory;
  bool tls = false;  // rediss:// and rediss+sentinel://
  std::vector<base::HostPort> hosts = {};
  std::string master_name = {};  // of kSentinel
  uint32_t database = 0;
};

// InvalidArgument, with what is expected, for anything else than the forms above. The error does not quote the URL,
// which may have a password in it although it must not.
absl::StatusOr<LogTarget> ParseLogTarget(std::string_view text);

// The settings of a journal. services/inference/options.cc says which flag sets each field, and describes the flags.
struct LogOptions {
  LogTarget target;
  std::string user;           // empty: the server's default user
  std::string password_file;  // its first line is the password, read at each connect; empty: none
  std::string ca_file;        // of the server's certificate; empty: the system's authorities
  std::string cert_file;      // to present to the server; empty: none
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
