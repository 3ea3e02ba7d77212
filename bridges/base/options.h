#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bridges/base/api_keys.h"

namespace runnel::bridge {

// What can be set of both bridges. Each field is a flag of the same name (options.cc), which has its text; the values
// here are the flags' defaults, for tests.
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
  // Of all requests and messages that are not complete yet, together.
  size_t max_unfinished_bytes = 64 << 20;
  absl::Duration header_timeout = absl::Seconds(10);
  absl::Duration idle_timeout = absl::Seconds(75);
  absl::Duration write_timeout = absl::Seconds(30);
  absl::Duration heartbeat_interval = absl::Seconds(15);
  // Of one stream: bytes made and not yet taken by the socket. Beyond, the attachment is given up until they are gone.
  size_t max_pending_bytes = 64 << 10;

  // Batches of a Link read ahead of its io thread.
  size_t link_backlog = 8;
  absl::Duration link_keepalive = absl::Seconds(10);
  absl::Duration open_timeout = absl::Seconds(5);
  absl::Duration recovery_timeout = absl::Seconds(30);
  // Runs of replicas remembered, to tell a generation that is lost from one that never was.
  size_t max_known_replicas = 1024;
  absl::Duration rpc_timeout = absl::Seconds(10);
  absl::Duration reconnect_backoff = absl::Milliseconds(100);
  absl::Duration max_reconnect_backoff = absl::Seconds(2);

  // Exact origins, or `*`. Empty: those whose host is the one that the request was sent to.
  std::vector<std::string> allowed_origins;
  std::vector<ApiKey> api_keys;  // read from --api_keys_file; empty: no key is asked for
  bool allow_anonymous = false;

  absl::Duration drain_notice = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(20);

  // How often each connection looks at its deadlines; they are kept to within this. Not a flag.
  absl::Duration tick = absl::Seconds(1);
};

// Sets what --listen and --admin_listen are without being given. Call before base::ParseFlags, so that --help shows it.
void SetListenDefaults(const std::string& listen, const std::string& admin_listen);

// From the flags of the process. InvalidArgument or NotFound name the flag at fault; among the faults is to listen
// beyond loopback without a key and without --allow_anonymous.
absl::StatusOr<BridgeOptions> BridgeOptionsFromFlags();

// Whether host:port is this machine only.
absl::StatusOr<bool> IsLoopback(const std::string& address);

// The checks of the above on options that come from elsewhere.
absl::Status CheckBridgeOptions(const BridgeOptions& options);

}  // namespace runnel::bridge
