#include "bridges/base/options.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "services/base/host_port.h"
#include "services/base/message_limits.h"
#include "services/base/status_macros.h"

ABSL_FLAG(std::string, listen, "", "host:port for clients; port 0 takes a free one");
ABSL_FLAG(std::string, admin_listen, "", "host:port for /livez, /readyz and /metrics");
ABSL_FLAG(
    std::string, inference, "127.0.0.1:50051",
    "replicas of the inference service, comma-separated: host:port each, or dns:///host:port for every address of a "
    "name");
ABSL_FLAG(absl::Duration, resolve_interval, absl::Seconds(5), "how often the names in --inference are asked again");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warn, error or off");
ABSL_FLAG(uint32_t, io_threads, 0, "threads that serve connections; 0: as many as there are cores");

ABSL_FLAG(uint64_t, max_connections, 12'000, "open connections; beyond, they are answered 503");
ABSL_FLAG(uint64_t, max_header_bytes, 16 << 10, "bytes of a request's header");
ABSL_FLAG(uint64_t, max_body_bytes, 1 << 20,
          "bytes of a request's body, or of a message; a request above the inference service's --max_request_bytes is "
          "answered 413 all the same");
ABSL_FLAG(uint64_t, max_unfinished_bytes, 64 << 20,
          "bytes of all requests and messages that are not complete yet; beyond, they are rejected with 503");
ABSL_FLAG(absl::Duration, header_timeout, absl::Seconds(10),
          "how long a request's header may take to come, and again its body");
ABSL_FLAG(absl::Duration, idle_timeout, absl::Seconds(75), "how long a connection may do nothing between requests");
ABSL_FLAG(absl::Duration, write_timeout, absl::Seconds(30),
          "how long a socket may take no bytes before it is closed; the client resumes");
ABSL_FLAG(absl::Duration, heartbeat_interval, absl::Seconds(15), "silence after which a heartbeat is sent");
ABSL_FLAG(uint64_t, max_pending_bytes, 64 << 10,
          "bytes of one stream made but not yet taken by its socket; beyond, it waits in the service's log");

ABSL_FLAG(uint32_t, link_backlog, 8, "batches from the service read ahead of the thread that serves them");
ABSL_FLAG(absl::Duration, link_keepalive, absl::Seconds(10),
          "silence of a replica after which it is pinged; it counts as lost if it does not answer within half of that");
ABSL_FLAG(absl::Duration, open_timeout, absl::Seconds(5),
          "how long the service may take to answer a start or an attach");
ABSL_FLAG(absl::Duration, recovery_timeout, absl::Seconds(30),
          "how long open streams, and starts with an idempotency key, wait for a replica that was lost; after that "
          "its generations count as lost");
ABSL_FLAG(uint64_t, max_known_replicas, 1024,
          "runs of replicas remembered, to tell a generation that is lost from one that never was");
ABSL_FLAG(absl::Duration, rpc_timeout, absl::Seconds(10), "how long the service may take to answer other calls");
ABSL_FLAG(absl::Duration, reconnect_backoff, absl::Milliseconds(100),
          "wait before the first new attempt to reach a lost service; doubles");
ABSL_FLAG(absl::Duration, max_reconnect_backoff, absl::Seconds(2), "the most that it doubles to");

ABSL_FLAG(std::vector<std::string>, allowed_origins, {},
          "origins of pages that may use the bridge, comma-separated, such as https://chat.example.com; * allows all; "
          "empty: those from the same host and port");
ABSL_FLAG(std::string, api_keys_file, "",
          "file of the bearer keys that clients may use, one a line, each with a name behind it: who it is for; empty: "
          "no key "
          "is asked for");
ABSL_FLAG(bool, allow_anonymous, false, "listen beyond loopback though no key is asked for");

ABSL_FLAG(
    absl::Duration, drain_notice, absl::ZeroDuration(),
    "after SIGTERM: how long to go on accepting while readiness is off, so that load balancers learn of it first");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(20),
          "after that: how long streams may go on before they are cut; clients resume elsewhere");

namespace runnel::bridge {
namespace {

absl::Status CheckCount(const char* flag, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " is ", value, ", want ", least, " to ", most));
}

absl::Status CheckTime(const char* flag, absl::Duration value) {
  if (value > absl::ZeroDuration() && value <= absl::Hours(24)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is ", absl::FormatDuration(value), ", want more than 0 and at most 24h"));
}

absl::Status CheckOriginList(const std::vector<std::string>& origins) {
  for (const std::string& origin : origins) {
    const bool whole = origin == "*" || origin == "null" ||
                       (origin.find("://") != std::string::npos && origin.back() != '/' &&
                        origin.find('/', origin.find("://") + 3) == std::string::npos);
    if (!whole) {
      return absl::InvalidArgumentError(absl::StrCat("--allowed_origins has '", origin,
                                                     "', want scheme://host or scheme://host:port, without a path"));
    }
  }
  return absl::OkStatus();
}

// Beast throws for a header field above 65,533 bytes.
constexpr uint64_t kMaxHeaderBytes = (64 << 10) - 1;
// What a connection may have read behind its request.
constexpr size_t kReadAheadBytes = 64 << 10;

}  // namespace

absl::StatusOr<bool> IsLoopback(const std::string& address) {
  ASSIGN_OR_RETURN(const base::HostPort parsed, base::ParseHostPort(address));
  if (parsed.host == "localhost") return true;
  boost::system::error_code ec;
  const auto ip = boost::asio::ip::make_address(parsed.host, ec);
  return !ec && ip.is_loopback();
}

void SetListenDefaults(const std::string& listen, const std::string& admin_listen) {
  absl::SetFlag(&FLAGS_listen, listen);
  absl::SetFlag(&FLAGS_admin_listen, admin_listen);
}

absl::Status CheckBridgeOptions(const BridgeOptions& options) {
  RETURN_IF_ERROR(CheckCount("io_threads", options.io_threads, 1, 256));
  RETURN_IF_ERROR(CheckCount("max_connections", options.max_connections, 1, 1'000'000));
  RETURN_IF_ERROR(CheckCount("max_header_bytes", options.max_header_bytes, 1 << 10, kMaxHeaderBytes));
  RETURN_IF_ERROR(CheckCount("max_body_bytes", options.max_body_bytes, 1 << 10, base::kMaxRequestBytes));
  RETURN_IF_ERROR(CheckCount("max_unfinished_bytes", options.max_unfinished_bytes, 1 << 10, uint64_t{1} << 40));
  if (options.max_unfinished_bytes < options.max_header_bytes + options.max_body_bytes + kReadAheadBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("--max_unfinished_bytes is ", options.max_unfinished_bytes,
                     ": one request of --max_header_bytes and --max_body_bytes does not fit; want at least ",
                     options.max_header_bytes + options.max_body_bytes + kReadAheadBytes));
  }
  RETURN_IF_ERROR(CheckCount("max_pending_bytes", options.max_pending_bytes, 1 << 10, 1 << 30));
  RETURN_IF_ERROR(CheckCount("link_backlog", options.link_backlog, 1, 1024));
  RETURN_IF_ERROR(CheckCount("max_known_replicas", options.max_known_replicas, 1, 1'000'000));
  RETURN_IF_ERROR(CheckTime("header_timeout", options.header_timeout));
  RETURN_IF_ERROR(CheckTime("idle_timeout", options.idle_timeout));
  RETURN_IF_ERROR(CheckTime("write_timeout", options.write_timeout));
  RETURN_IF_ERROR(CheckTime("heartbeat_interval", options.heartbeat_interval));
  RETURN_IF_ERROR(CheckTime("resolve_interval", options.resolve_interval));
  if (options.link_keepalive < absl::Seconds(1)) {
    return absl::InvalidArgumentError(
        "--link_keepalive must be at least 1s: the service takes more pings for an attack");
  }
  RETURN_IF_ERROR(CheckTime("open_timeout", options.open_timeout));
  RETURN_IF_ERROR(CheckTime("recovery_timeout", options.recovery_timeout));
  RETURN_IF_ERROR(CheckTime("rpc_timeout", options.rpc_timeout));
  RETURN_IF_ERROR(CheckTime("reconnect_backoff", options.reconnect_backoff));
  RETURN_IF_ERROR(CheckTime("max_reconnect_backoff", options.max_reconnect_backoff));
  RETURN_IF_ERROR(CheckOriginList(options.allowed_origins));
  ASSIGN_OR_RETURN(const bool loopback, IsLoopback(options.listen));
  if (!loopback && options.api_keys.empty() && !options.allow_anonymous) {
    return absl::InvalidArgumentError(absl::StrCat("--listen=", options.listen,
                                                   " is beyond loopback: give --api_keys_file, or --allow_anonymous if "
                                                   "whoever can connect may use it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<BridgeOptions> BridgeOptionsFromFlags() {
  BridgeOptions options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.admin_listen = absl::GetFlag(FLAGS_admin_listen);
  options.inference = absl::GetFlag(FLAGS_inference);
  options.resolve_interval = absl::GetFlag(FLAGS_resolve_interval);
  options.log_level = absl::GetFlag(FLAGS_log_level);
  options.io_threads = absl::GetFlag(FLAGS_io_threads);
  if (options.io_threads == 0) options.io_threads = std::max(1u, std::thread::hardware_concurrency());

  options.max_connections = absl::GetFlag(FLAGS_max_connections);
  options.max_header_bytes = absl::GetFlag(FLAGS_max_header_bytes);
  options.max_body_bytes = absl::GetFlag(FLAGS_max_body_bytes);
  options.max_unfinished_bytes = absl::GetFlag(FLAGS_max_unfinished_bytes);
  options.header_timeout = absl::GetFlag(FLAGS_header_timeout);
  options.idle_timeout = absl::GetFlag(FLAGS_idle_timeout);
  options.write_timeout = absl::GetFlag(FLAGS_write_timeout);
  options.heartbeat_interval = absl::GetFlag(FLAGS_heartbeat_interval);
  options.max_pending_bytes = absl::GetFlag(FLAGS_max_pending_bytes);

  options.link_backlog = absl::GetFlag(FLAGS_link_backlog);
  options.link_keepalive = absl::GetFlag(FLAGS_link_keepalive);
  options.open_timeout = absl::GetFlag(FLAGS_open_timeout);
  options.recovery_timeout = absl::GetFlag(FLAGS_recovery_timeout);
  options.max_known_replicas = absl::GetFlag(FLAGS_max_known_replicas);
  options.rpc_timeout = absl::GetFlag(FLAGS_rpc_timeout);
  options.reconnect_backoff = absl::GetFlag(FLAGS_reconnect_backoff);
  options.max_reconnect_backoff = absl::GetFlag(FLAGS_max_reconnect_backoff);

  options.allowed_origins = absl::GetFlag(FLAGS_allowed_origins);
  options.allow_anonymous = absl::GetFlag(FLAGS_allow_anonymous);
  if (const std::string path = absl::GetFlag(FLAGS_api_keys_file); !path.empty()) {
    ASSIGN_OR_RETURN(options.api_keys, ReadApiKeys(path));
  }
  options.drain_notice = absl::GetFlag(FLAGS_drain_notice);
  options.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  // Silences are measured in ticks, so the shortest of them has several.
  options.tick = std::clamp(std::min(options.heartbeat_interval, options.write_timeout) / 8, absl::Milliseconds(50),
                            absl::Seconds(1));
  RETURN_IF_ERROR(CheckBridgeOptions(options));
  return options;
}

}  // namespace runnel::bridge
