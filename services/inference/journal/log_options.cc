#include "services/inference/journal/log_options.h"

#include <algorithm>
#include <array>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace runnel::inference {
namespace {

constexpr uint32_t kMaxDatabase = 65'535;
constexpr size_t kMaxHosts = 16;
constexpr size_t kMaxMasterNameBytes = 128;

struct Scheme {
  std::string_view prefix;
  LogTarget::Kind kind;
  bool tls;
};
constexpr std::array<Scheme, 4> kSchemes = {{{"redis://", LogTarget::Kind::kServer, false},
                                             {"rediss://", LogTarget::Kind::kServer, true},
                                             {"redis+sentinel://", LogTarget::Kind::kSentinel, false},
                                             {"rediss+sentinel://", LogTarget::Kind::kSentinel, true}}};

absl::Status Invalid(std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat(absl::string_view(what.data(), what.size()),
                   ": expected memory, redis://host:port[/db] or "
                   "redis+sentinel://host:port,host:port/master-name[/db], with rediss in place of redis for TLS"));
}

absl::Status ReadHosts(const std::string& list, LogTarget* target) {
  const std::vector<std::string> hosts = absl::StrSplit(list, ',');
  if (hosts.size() > (target->kind == LogTarget::Kind::kSentinel ? kMaxHosts : 1)) return Invalid("too many hosts");
  for (const std::string& each : hosts) {
    const auto host = base::ParseHostPort(each);
    if (!host.ok() || host->host.empty() || host->port == 0) return Invalid("a host or its port is missing or invalid");
    // Also of an IPv6 address with a zone.
    const bool allowed = std::all_of(host->host.begin(), host->host.end(), [](char c) {
      return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' || c == ':' ||
             c == '%';
    });
    if (!allowed) return Invalid("a host has characters that no host name has");
    target->hosts.push_back(*host);
  }
  return absl::OkStatus();
}

absl::Status ReadDatabase(const std::string& text, LogTarget* target) {
  const bool digits = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || !absl::SimpleAtoi(text, &target->database) || target->database > kMaxDatabase) {
    return Invalid("the number of the database is invalid");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LogTarget> ParseLogTarget(std::string_view text) {
  LogTarget target;
  if (text == "memory") return target;
  const auto* const scheme = std::find_if(kSchemes.begin(), kSchemes.end(),
                                          [text](const Scheme& each) { return text.starts_with(each.prefix); });
  if (scheme == kSchemes.end()) return Invalid("neither memory nor the URL of a store");
  target.kind = scheme->kind;
  target.tls = scheme->tls;
  const std::string rest(text.substr(scheme->prefix.size()));
  if (rest.find('@') != std::string::npos) {
    return Invalid("a user or password does not belong in the URL: use --log_user and --log_password_file");
  }
  const std::vector<std::string> path = absl::StrSplit(rest, '/');
  const bool sentinel = target.kind == LogTarget::Kind::kSentinel;
  const size_t with_database = sentinel ? 3 : 2;
  if (path.size() + 1 < with_database) return Invalid("the name of the master is missing");
  if (path.size() > with_database) return Invalid("too many parts");
  if (absl::Status hosts = ReadHosts(path[0], &target); !hosts.ok()) return hosts;
  if (sentinel) {
    target.master_name = path[1];
    const bool printable = std::all_of(path[1].begin(), path[1].end(), [](char c) { return c > ' ' && c <= '~'; });
    if (path[1].empty() || path[1].size() > kMaxMasterNameBytes || !printable) {
      return Invalid("the name of the master is missing or invalid");
    }
  }
  if (path.size() < with_database) return target;
  if (absl::Status database = ReadDatabase(path.back(), &target); !database.ok()) return database;
  return target;
}

}  // namespace runnel::inference
