#include "bridges/base/options.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "services/base/host_port.h"
#include "services/base/message_limits.h"
#include "services/base/status_macros.h"

ABSL_FLAG(std::string, listen, "", "address for clients: host:port, or :port for every address; port 0: a free one");
ABSL_FLAG(std::string, admin_listen, "",
          "address for /livez, /readyz and /metrics: host:port, or :port for every address");
ABSL_FLAG(std::string, inference, "127.0.0.1:50051",
          "replicas of the inference service, comma-separated: host:port, or dns:///host:port for every address of a "
          "name");
ABSL_FLAG(absl::Duration, resolve_interval, absl::Seconds(5), "time between two DNS queries for --inference");
ABSL_FLAG(std::string, log_level, "info", "lowest level to log: trace, debug, info, warn, error or off");
ABSL_FLAG(uint32_t, io_threads, 0, "threads that serve connections; 0: one per core");

ABSL_FLAG(uint64_t, max_connections, 12'000, "limit of open connections; further ones get a 503 response");
ABSL_FLAG(uint64_t, max_header_bytes, 16 << 10, "limit of the header of a request (bytes)");
ABSL_FLAG(uint64_t, max_body_bytes, 1 << 20,
          "limit of the body of a request (bytes); a request above the inference service's --max_request_bytes gets a "
          "413 response in any case");
ABSL_FLAG(uint64_t, max_unfinished_bytes, 64 << 20,
          "limit of all requests and messages together that are not complete yet (bytes); further ones get a 503 "
          "response");
ABSL_FLAG(absl::Duration, header_timeout, absl::Seconds(10),
          "time limit for receiving the header of a request, and then for its body");
ABSL_FLAG(absl::Duration, idle_timeout, absl::Seconds(75), "time limit for a connection without a request");
ABSL_FLAG(absl::Duration, write_timeout, absl::Seconds(30),
          "time in which a socket must accept bytes, or it is closed and its client resumes");
ABSL_FLAG(absl::Duration, heartbeat_interval, absl::Seconds(15), "silence of a stream before a heartbeat is sent");
ABSL_FLAG(
    uint64_t, max_pending_bytes, 64 << 10,
    "limit of the encoded output of one stream that its socket has not accepted (bytes); above it, events stay in the "
    "service's log");

ABSL_FLAG(uint32_t, link_backlog, 8, "batches from the service that are read before their thread handles them");
ABSL_FLAG(absl::Duration, link_keepalive, absl::Seconds(10),
          "silence of a replica before it is pinged; it counts as lost without a reply within half of this time");
ABSL_FLAG(absl::Duration, open_timeout, absl::Seconds(5), "time limit for the service's reply to a start or an attach");
ABSL_FLAG(absl::Duration, recovery_timeout, absl::Seconds(30),
          "time that open streams, and starts with an idempotency key, wait for a lost replica before its generations "
          "count as lost");
ABSL_FLAG(uint64_t, max_known_replicas, 1024,
          "replica processes to remember, to distinguish a lost generation from one that never existed");
ABSL_FLAG(absl::Duration, rpc_timeout, absl::Seconds(10), "time limit for other calls of the service");
ABSL_FLAG(absl::Duration, reconnect_backoff, absl::Milliseconds(100),
          "time before the first attempt to reconnect to a replica; doubles with each further attempt");
ABSL_FLAG(absl::Duration, max_reconnect_backoff, absl::Seconds(2), "limit of the time between attempts to reconnect");

ABSL_FLAG(std::vector<std::string>, allowed_origins, {},
          "origins of pages that may use the bridge, comma-separated, for example https://chat.example.com; * allows "
          "all; empty: only the host and port of the request");
ABSL_FLAG(std::string, api_keys_file, "",
          "file of the bearer keys that clients may use, one per line, each optionally followed by the name of its "
          "principal; empty: no key is required");
ABSL_FLAG(bool, allow_anonymous, false, "permission to listen on a non-loopback address without keys");

ABSL_FLAG(
    absl::Duration, drain_notice, absl::ZeroDuration(),
    "time after SIGTERM in which connections are still accepted while /readyz fails, so that load balancers notice "
    "first");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(20),
          "time after that for streams to end before they are cut; clients resume on another bridge");

namespace runnel::bridge {
namespace {

absl::Status CheckCount(const char* flag, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, " is ", value, ": expected ", least, " to ", most));
}

absl::Status CheckTime(const char* flag, absl::Duration value) {
  if (value > absl::ZeroDuration() && value <= absl::Hours(24)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, " is ", absl::FormatDuration(value), ": expected more than 0 and at most 24h"));
}

absl::Status CheckOriginList(const std::vector<std::string>& origins) {
  for (const std::string& origin : origins) {
    const bool whole = origin == "*" || origin == "null" ||
                       (origin.find("://") != std::string::npos && origin.back() != '/' &&
                        origin.find('/', origin.find("://") + 3) == std::string::npos);
    if (!whole) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--allowed_origins has '", origin, "': expected scheme://host or scheme://host:port, without a path"));
    }
  }
  return absl::OkStatus();
}

// Beast throws if a header field exceeds 65,533 bytes.
constexpr uint64_t kMaxHeaderBytes = (64 << 10) - 1;
// Bytes that a connection may have read past the end of its request.
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
                     ": one request of --max_header_bytes and --max_body_bytes does not fit; expected at least ",
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
        absl::StrCat("--link_keepalive is ", absl::FormatDuration(options.link_keepalive),
                     ": expected at least 1s, because the service rejects more frequent pings as abuse"));
  }
  RETURN_IF_ERROR(CheckTime("open_timeout", options.open_timeout));
  RETURN_IF_ERROR(CheckTime("recovery_timeout", options.recovery_timeout));
  RETURN_IF_ERROR(CheckTime("rpc_timeout", options.rpc_timeout));
  RETURN_IF_ERROR(CheckTime("reconnect_backoff", options.reconnect_backoff));
  RETURN_IF_ERROR(CheckTime("max_reconnect_backoff", options.max_reconnect_backoff));
  RETURN_IF_ERROR(CheckOriginList(options.allowed_origins));
  ASSIGN_OR_RETURN(const bool loopback, IsLoopback(options.listen));
  if (!loopback && options.api_keys.empty() && !options.allow_anonymous) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen=", options.listen,
                     " is not a loopback address: set --api_keys_file, or --allow_anonymous to serve anyone who can "
                     "connect"));
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
  // Silence is measured in ticks, so even the shortest limit spans several.
  options.tick = std::clamp(std::min(options.heartbeat_interval, options.write_timeout) / 8, absl::Milliseconds(50),
                            absl::Seconds(1));
  RETURN_IF_ERROR(CheckBridgeOptions(options));
  return options;
}

}  // namespace runnel::bridge
