#include "services/inference/journal/redis/redis_url.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxUrlBytes = 2048;
constexpr size_t kMaxServers = 16;
constexpr int kPort = 6379;
constexpr int kSentinelPort = 26379;
constexpr int kMaxDb = 1'000'000;

// The message never contains the URL, which may have a password in it.
absl::Status Bad(std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--log: ", base::ToAbsl(why),
                                                 ": expected memory, redis://host:port[/db], "
                                                 "redis+sentinel://host:port[,host:port...]/master-name[/db], or the "
                                                 "same with rediss for TLS"));
}

bool IsNameChar(unsigned char c) { return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_'; }
bool IsAddressChar(unsigned char c) { return absl::ascii_isxdigit(c) || c == ':' || c == '.'; }

// Decimal digits without a sign or blanks, which SimpleAtoi would accept; -1 if it is anything else, or above `max`.
int ReadNumber(std::string_view text, int max) {
  int number = 0;
  const bool digits = !text.empty() && text.size() <= 7 &&
                      std::all_of(text.begin(), text.end(), [](unsigned char c) { return absl::ascii_isdigit(c); });
  return digits && absl::SimpleAtoi(base::ToAbsl(text), &number) && number <= max ? number : -1;
}

// "host", "host:port", "[v6]" or "[v6]:port".
absl::StatusOr<base::HostPort> ReadServer(std::string_view text, int default_port) {
  const bool bracketed = text.starts_with('[');
  const size_t end = bracketed ? text.find(']') : std::min(text.find(':'), text.size());
  if (end == std::string_view::npos) return Bad("the ']' after an IPv6 address is missing");
  const std::string_view host = text.substr(bracketed ? 1 : 0, bracketed ? end - 1 : end);
  if (host.empty()) return Bad("a host is missing");
  if (!std::all_of(host.begin(), host.end(), bracketed ? IsAddressChar : IsNameChar)) {
    return Bad("a host has characters that are not allowed in a host");
  }
  base::HostPort server{.host = std::string(host), .port = default_port};
  const std::string_view rest = text.substr(bracketed ? end + 1 : end);
  if (rest.empty()) return server;
  server.port = rest.front() == ':' ? ReadNumber(rest.substr(1), 65535) : -1;
  if (server.port < 1) return Bad("a port is not a number from 1 to 65535");
  return server;
}

absl::Status ReadServers(std::string_view text, RedisUrl* url) {
  const bool sentinel = !url->master_name.empty();
  while (true) {
    const size_t comma = std::min(text.find(','), text.size());
    ASSIGN_OR_RETURN(base::HostPort server, ReadServer(text.substr(0, comma), sentinel ? kSentinelPort : kPort));
    url->servers.push_back(std::move(server));
    if (comma == text.size()) break;
    text.remove_prefix(comma + 1);
  }
  if (!sentinel && url->servers.size() > 1) return Bad("more than one server needs redis+sentinel://");
  if (url->servers.size() > kMaxServers) return Bad("there are too many servers");
  return absl::OkStatus();
}

bool TakeScheme(std::string_view* url, RedisUrl* result, bool* sentinel) {
  struct Scheme {
    std::string_view text;
    bool tls, sentinel;
  };
  for (const Scheme& scheme : {Scheme{"redis://", false, false}, Scheme{"rediss://", true, false},
                               Scheme{"redis+sentinel://", false, true}, Scheme{"rediss+sentinel://", true, true}}) {
    if (!url->starts_with(scheme.text)) continue;
    url->remove_prefix(scheme.text.size());
    result->tls = scheme.tls;
    *sentinel = scheme.sentinel;
    return true;
  }
  return false;
}

// Takes what is before the next slash, and the slash.
std::string_view TakeSegment(std::string_view* path) {
  const size_t slash = std::min(path->find('/'), path->size());
  const std::string_view segment = path->substr(0, slash);
  path->remove_prefix(std::min(slash + 1, path->size()));
  return segment;
}

}  // namespace

std::string RedisUrl::ToString() const {
  std::string text = absl::StrCat(tls ? "rediss" : "redis", master_name.empty() ? "" : "+sentinel", "://");
  for (const base::HostPort& server : servers) {
    const bool v6 = server.host.find(':') != std::string::npos;
    absl::StrAppend(&text, &server == servers.data() ? "" : ",", v6 ? "[" : "", server.host, v6 ? "]:" : ":",
                    server.port);
  }
  if (!master_name.empty()) absl::StrAppend(&text, "/", master_name);
  return text;
}

absl::StatusOr<RedisUrl> ParseRedisUrl(std::string_view url) {
  if (url.size() > kMaxUrlBytes) return Bad("the URL is too long");
  if (!std::all_of(url.begin(), url.end(), [](unsigned char c) { return absl::ascii_isgraph(c); })) {
    return Bad("the URL has blanks, control characters or non-ASCII characters");
  }
  RedisUrl result;
  bool sentinel = false;
  if (!TakeScheme(&url, &result, &sentinel)) return Bad("the URL begins with none of the schemes");
  if (url.find('@') != std::string_view::npos) {
    return Bad(
        "a user or password in the URL is visible in every list of processes: use --log_user and "
        "--log_password_file");
  }
  if (url.find_first_of("?#") != std::string_view::npos) return Bad("'?' and '#' are not allowed");
  const std::string_view servers = TakeSegment(&url);
  if (sentinel) {
    const std::string_view name = TakeSegment(&url);
    if (name.empty()) return Bad("the name of the master after the Sentinels is missing");
    if (!std::all_of(name.begin(), name.end(), IsNameChar)) {
      return Bad("the name of the master has other characters than letters, digits, '.', '-' and '_'");
    }
    result.master_name = std::string(name);
  }
  RETURN_IF_ERROR(ReadServers(servers, &result));
  if (!url.empty()) {
    result.db = ReadNumber(url, kMaxDb);
    if (result.db < 0) return Bad("the database after the last '/' is not a number");
  }
  return result;
}

}  // namespace runnel::inference
