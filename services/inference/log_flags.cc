#include "services/inference/log_flags.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/host_port.h"
#include "services/base/status_macros.h"
#include "services/inference/check_flag.h"

ABSL_FLAG(std::string, log, "memory",
          "where the logs of generations are kept: memory, or a Redis or Valkey server that the replicas share: "
          "redis://host:port[/db] or redis+sentinel://host:port,host:port/master-name[/db], with rediss for TLS");
ABSL_FLAG(std::string, log_user, "", "log: ACL user of the store; empty: its default user");
ABSL_FLAG(std::string, log_password_file, "",
          "log: file whose first line is the password of the store, read at each connect; empty: none");
ABSL_FLAG(std::string, log_ca_file, "", "log: PEM file of the certificate authorities for rediss; empty: the system's");
ABSL_FLAG(std::string, log_cert_file, "", "log: PEM file of a certificate to present to the store; empty: none");
ABSL_FLAG(std::string, log_cert_key_file, "", "log: PEM file of the certificate's key");
ABSL_FLAG(std::string, log_key_file, "",
          "log: file with the keys that everything in the store is encrypted with; empty: it is not encrypted");
ABSL_FLAG(std::string, log_prefix, "rnl",
          "log: beginning of all keys in the store; deployments that share a store need different ones");
ABSL_FLAG(absl::Duration, log_wait, absl::Milliseconds(100),
          "log: longest time for which output waits for the store, before readers get it unprotected");
ABSL_FLAG(bool, log_required, false,
          "log: reject starts with UNAVAILABLE, and hold output back, while the store does not answer");
ABSL_FLAG(absl::Duration, log_lease, absl::Milliseconds(700),
          "log: time without a sign of life in the store after which other replicas take generations over");
ABSL_FLAG(uint32_t, log_min_replicas, 0,
          "log: replicas of the store that must have acknowledged output before readers get it; 0: none");
ABSL_FLAG(absl::Duration, log_max_age, absl::Hours(24),
          "log: time after which the store may forget a generation that still runs");
ABSL_FLAG(uint64_t, log_max_bytes, uint64_t{4} << 20,
          "log: limit of the stored log of one generation (bytes); a longer one is unprotected");
ABSL_FLAG(absl::Duration, tombstone_age, absl::Hours(24),
          "log: time after --retention for which the store remembers the id of a purged generation");
ABSL_FLAG(std::string, log_address, "",
          "log: host:port at which other replicas reach this one's gRPC port; empty: the local address of the "
          "connection to the store, and the port of --listen");
ABSL_FLAG(absl::Duration, recovery_timeout, absl::Seconds(30),
          "log: time without an answer after which a replica counts as gone even for generations that cannot be "
          "continued, and after a takeover for readers to come back");
ABSL_FLAG(bool, drain_handover, true,
          "log: hand running generations over to other replicas in a drain, in place of waiting for their end");

namespace runnel::inference {
namespace {

bool IsLogPrefix(const std::string& prefix) {
  return !prefix.empty() && prefix.size() <= 32 && std::all_of(prefix.begin(), prefix.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
}

absl::Status CheckLogFlags(const LogOptions& log) {
  if (!IsLogPrefix(log.prefix)) {
    return absl::InvalidArgumentError("--log_prefix: expected 1 to 32 letters, digits, '-', '_' and '.'");
  }
  if (!log.address.empty()) {
    const auto address = base::ParseHostPort(log.address);
    if (!address.ok() || address->host.empty() || address->port == 0) {
      return absl::InvalidArgumentError("--log_address: expected host:port, at which other replicas reach this one");
    }
  }
  RETURN_IF_ERROR(CheckDuration("log_wait", log.wait, absl::Milliseconds(1), absl::Minutes(1)));
  RETURN_IF_ERROR(CheckDuration("log_lease", log.lease, absl::Milliseconds(100), absl::Minutes(1)));
  RETURN_IF_ERROR(CheckDuration("log_max_age", log.max_age, absl::Minutes(1), absl::Hours(24 * 365)));
  RETURN_IF_ERROR(CheckDuration("tombstone_age", log.tombstone_age, absl::ZeroDuration(), absl::Hours(24 * 365)));
  RETURN_IF_ERROR(CheckFlag("log_min_replicas", log.min_replicas, 0u, 16u));
  return CheckFlag("log_max_bytes", log.max_bytes, size_t{64} << 10, size_t{256} << 20);
}

}  // namespace

absl::Status ReadLogFlags(LogOptions* log_options, GenerationManager::Options* manager) {
  LogOptions& log = *log_options;
  if (const std::string target = absl::GetFlag(FLAGS_log); target != "memory") {
    ASSIGN_OR_RETURN(log.store, ParseRedisUrl(target));
  }
  log.user = absl::GetFlag(FLAGS_log_user);
  log.password_file = absl::GetFlag(FLAGS_log_password_file);
  log.ca_file = absl::GetFlag(FLAGS_log_ca_file);
  log.cert_file = absl::GetFlag(FLAGS_log_cert_file);
  log.cert_key_file = absl::GetFlag(FLAGS_log_cert_key_file);
  log.key_file = absl::GetFlag(FLAGS_log_key_file);
  log.prefix = absl::GetFlag(FLAGS_log_prefix);
  log.wait = absl::GetFlag(FLAGS_log_wait);
  log.required = absl::GetFlag(FLAGS_log_required);
  log.lease = absl::GetFlag(FLAGS_log_lease);
  log.min_replicas = absl::GetFlag(FLAGS_log_min_replicas);
  log.max_age = absl::GetFlag(FLAGS_log_max_age);
  log.max_bytes = absl::GetFlag(FLAGS_log_max_bytes);
  log.tombstone_age = absl::GetFlag(FLAGS_tombstone_age);
  log.address = absl::GetFlag(FLAGS_log_address);
  manager->recovery_timeout = absl::GetFlag(FLAGS_recovery_timeout);
  manager->drain_handover = absl::GetFlag(FLAGS_drain_handover);
  RETURN_IF_ERROR(CheckDuration("recovery_timeout", manager->recovery_timeout, absl::Seconds(1), absl::Hours(1)));
  return CheckLogFlags(log);
}

}  // namespace runnel::inference
