#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bridges/base/api_keys.h"

namespace runnel::bridge {

// Options shared by both bridges. Each field is a flag of the same name, described in options.cc; the values here are
// the flags' defaults, for tests.
struct BridgeOptions {
  std::string listen = "127.0.0.1:0";
  std::string admin_listen = "127.0.0.1:0";
  std::string inference = "127.0.0.1:50051";
  absl::Duration resolve_interval = absl::Seconds(5);
  std::string log_level = "info";
  size_t io_threads = 0;  // 0: as many as there are cores

  size_t max_connections = 12'000;
  size_t max_header_bytes = 16 << 10;
  size_t max_body_bytes = 1 << 20;
  // Total of all requests and messages that are not complete yet.
  size_t max_unfinished_bytes = 64 << 20;
  absl::Duration header_timeout = absl::Seconds(10);
  absl::Duration idle_timeout = absl::Seconds(75);
  absl::Duration write_timeout = absl::Seconds(30);
  absl::Duration heartbeat_interval = absl::Seconds(15);
  // Per stream: encoded bytes that the socket has not accepted. Above it the attachment is given up until they are
  // sent.
  size_t max_pending_bytes = 64 << 10;

  // Batches of a Link read ahead of its io thread.
  size_t link_backlog = 8;
  absl::Duration link_keepalive = absl::Seconds(10);
  absl::Duration open_timeout = absl::Seconds(5);
  absl::Duration recovery_timeout = absl::Seconds(30);
  // Replica processes remembered, to distinguish a lost generation from one that never existed.
  size_t max_known_replicas = 1024;
  absl::Duration rpc_timeout = absl::Seconds(10);
  absl::Duration reconnect_backoff = absl::Milliseconds(100);
  absl::Duration max_reconnect_backoff = absl::Seconds(2);

  // Exact origins, or `*`. Empty: only the host to which the request was sent.
  std::vector<std::string> allowed_origins;
  std::vector<ApiKey> api_keys;  // read from --api_keys_file; empty: no key is required
  bool allow_anonymous = false;

  absl::Duration drain_notice = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(20);

  // How often each connection checks its deadlines, and with that their precision. Not a flag.
  absl::Duration tick = absl::Seconds(1);
};

// Sets the defaults of --listen and --admin_listen. Call it before base::ParseFlags, so that --help shows them.
void SetListenDefaults(const std::string& listen, const std::string& admin_listen);

// Reads the flags of the process. InvalidArgument and NotFound name the invalid flag. A --listen that is not a loopback
// address is invalid without a key and without --allow_anonymous.
absl::StatusOr<BridgeOptions> BridgeOptionsFromFlags();

// Whether host:port is a loopback address.
absl::StatusOr<bool> IsLoopback(const std::string& address);

// The same checks, for options that do not come from flags.
absl::Status CheckBridgeOptions(const BridgeOptions& options);

}  // namespace runnel::bridge
