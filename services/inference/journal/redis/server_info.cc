#include "services/inference/journal/redis/server_info.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

using Reason = RedisFailure::Reason;

// XADD with NOMKSTREAM.
constexpr int kMinMajor = 6, kMinMinor = 2;
constexpr size_t kMaxValue = 128;

// Returns the value of the line "key:value", or an empty string without such a line.
std::string_view Find(std::string_view info, std::string_view key) {
  while (!info.empty()) {
    const size_t end = std::min(info.find('\n'), info.size());
    std::string_view line = info.substr(0, end);
    info.remove_prefix(std::min(end + 1, info.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.size() > key.size() && line[key.size()] == ':' && line.starts_with(key))
      return line.substr(key.size() + 1);
  }
  return {};
}

// For messages and metrics: printable and short, whatever the server sent.
std::string Clean(std::string_view value) {
  std::string clean(value.substr(0, kMaxValue));
  std::replace_if(
      clean.begin(), clean.end(), [](unsigned char c) { return c <= ' ' || c >= 0x7f; }, '?');
  return clean;
}

int TakeNumber(std::string_view* text) {
  int number = 0;
  const size_t size = std::min(text->find_first_not_of("0123456789"), text->size());
  if (size == 0 || size > 6 || !absl::SimpleAtoi(base::ToAbsl(text->substr(0, size)), &number)) return -1;
  text->remove_prefix(size);
  return number;
}

bool IsOldVersion(std::string_view version) {
  const int major = TakeNumber(&version);
  if (!version.starts_with('.')) return true;
  version.remove_prefix(1);
  return std::pair(major, TakeNumber(&version)) < std::pair(kMinMajor, kMinMinor);
}

}  // namespace

std::optional<ServerProblem> ReadServerInfo(RedisReply reply, RedisServerInfo* info) {
  if (reply.is_error()) {
    if (auto problem = ProblemOf(reply); problem.has_value()) return problem;
    return ServerProblem{Reason::kNotRedis, "it does not know INFO"};
  }
  const std::string_view text = reply.text();
  // Valkey's name of the field comes second.
  if (Find(text, "redis_mode") == "sentinel" || Find(text, "server_mode") == "sentinel") {
    return ServerProblem{Reason::kSentinel, "it is a Sentinel: use redis+sentinel://"};
  }
  const std::string_view compatible = Find(text, "redis_version");
  if (compatible.empty()) return ServerProblem{Reason::kNotRedis, "its INFO has no version of Redis"};
  const std::string_view valkey = Find(text, "valkey_version");
  info->valkey = !valkey.empty();
  info->version = Clean(info->valkey ? valkey : compatible);
  if (IsOldVersion(compatible)) {
    return ServerProblem{Reason::kVersion, absl::StrCat("it is version ", info->version, ", but 6.2 is needed")};
  }
  info->run_id = Clean(Find(text, "run_id"));
  info->maxmemory_policy = Clean(Find(text, "maxmemory_policy"));
  if (Find(text, "cluster_enabled") == "1") {
    return ServerProblem{Reason::kCluster, "it is a node of a cluster: use a server of its own, or Sentinel"};
  }
  if (!absl::SimpleAtoi(base::ToAbsl(Find(text, "maxmemory")), &info->maxmemory)) info->maxmemory = 0;
  if (Find(text, "role") != "master") {
    return ServerProblem{Reason::kReplica, "it is a read-only replica"};
  }
  if (Find(text, "loading") == "1") return ServerProblem{Reason::kLoading, "it is loading its data"};
  return std::nullopt;
}

std::optional<ServerProblem> CheckAuth(RedisReply reply) {
  if (reply.is_ok()) return std::nullopt;
  if (!reply.is_error()) return ServerProblem{Reason::kNotRedis, "it replies to AUTH as Redis does not"};
  if (reply.error_code() == "WRONGPASS") {
    return ServerProblem{Reason::kPassword, "it rejects the user or the password (--log_user, --log_password_file)"};
  }
  if (auto problem = ProblemOf(reply); problem.has_value()) return problem;
  // "ERR AUTH <password> called without any password configured for the default user". Not logged: an error may repeat
  // the arguments.
  return ServerProblem{Reason::kPassword, "it rejects AUTH: it may have no password, or no ACL user of this name"};
}

std::optional<ServerProblem> CheckSelect(RedisReply reply, int db) {
  if (reply.is_ok()) return std::nullopt;
  if (auto problem = ProblemOf(reply); problem.has_value()) return problem;
  return ServerProblem{Reason::kOptions, absl::StrCat("it has no database ", db, " (--log)")};
}

std::optional<ServerProblem> ProblemOf(RedisReply error) {
  if (!error.is_error()) return std::nullopt;
  const std::string_view code = error.error_code();
  const std::string_view text = error.text();
  if (code == "NOAUTH") {
    return ServerProblem{Reason::kPassword, "it asks for a password: set --log_password_file"};
  }
  if (code == "NOPERM") {
    return ServerProblem{Reason::kPassword, "the user of --log_user may not run a command that is needed"};
  }
  if (code == "LOADING") return ServerProblem{Reason::kLoading, "it is loading its data"};
  if (code == "READONLY" || code == "MASTERDOWN") return ServerProblem{Reason::kReplica, "it is a read-only replica"};
  if (code == "DENIED") {
    return ServerProblem{Reason::kPassword, "it is in protected mode: it accepts only connections of its own machine"};
  }
  if (text.starts_with("ERR max number of clients")) {
    return ServerProblem{Reason::kRefused, "it has too many clients (maxclients)"};
  }
  return std::nullopt;
}

}  // namespace runnel::inference
