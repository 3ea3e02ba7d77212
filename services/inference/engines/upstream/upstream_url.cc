#include "services/inference/engines/upstream/upstream_url.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxUrlBytes = 2048;
constexpr int kHttpPort = 80;
constexpr int kHttpsPort = 443;

// The message never contains the URL, which may have a password in it.
absl::Status Bad(std::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("upstream URL: ", base::ToAbsl(why), ": expected, for example, http://127.0.0.1:8000/v1"));
}

bool IsNameChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_';
}

bool IsAddressChar(char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)) || c == ':' || c == '.'; }

// Splits "host", "host:port", "[v6]" and "[v6]:port"; `port` is empty if there is none.
absl::Status SplitAuthority(std::string_view authority, std::string_view* host, std::string_view* port) {
  const bool bracketed = authority.starts_with('[');
  const size_t end = bracketed ? authority.find(']') : authority.find(':');
  if (bracketed && end == std::string_view::npos) return Bad("the ']' after the IPv6 address is missing");
  *host = authority.substr(bracketed ? 1 : 0, bracketed ? end - 1 : end);
  if (host->empty()) return Bad("the host is missing");
  if (!std::all_of(host->begin(), host->end(), bracketed ? IsAddressChar : IsNameChar)) {
    return Bad("the host has characters that are not allowed in a host");
  }
  std::string_view rest = end == std::string_view::npos ? "" : authority.substr(bracketed ? end + 1 : end);
  if (rest.empty()) return absl::OkStatus();
  if (rest.front() != ':' || rest.size() == 1) return Bad("the port after the host is missing");
  *port = rest.substr(1);
  return absl::OkStatus();
}

absl::StatusOr<int> ReadPort(std::string_view text) {
  int port = 0;
  const bool digits =
      text.size() <= 5 && std::all_of(text.begin(), text.end(), [](unsigned char c) { return absl::ascii_isdigit(c); });
  if (!digits || !absl::SimpleAtoi(base::ToAbsl(text), &port) || port < 1 || port > 65535) {
    return Bad("the port is not a number from 1 to 65535");
  }
  return port;
}

}  // namespace

absl::StatusOr<UpstreamUrl> ParseUpstreamUrl(std::string_view url) {
  if (url.size() > kMaxUrlBytes) return Bad("it is too long");
  if (!std::all_of(url.begin(), url.end(), [](unsigned char c) { return absl::ascii_isgraph(c); })) {
    return Bad("it has blanks, control characters or non-ASCII characters");
  }
  if (url.find_first_of("@?#") != std::string_view::npos) {
    return Bad("'@', '?' and '#' are not allowed (a key belongs in --upstream_api_key_file)");
  }
  UpstreamUrl result;
  if (url.starts_with("https://")) {
    result.tls = true;
    url.remove_prefix(8);
  } else if (url.starts_with("http://")) {
    url.remove_prefix(7);
  } else {
    return Bad("it must begin with http:// or https://");
  }
  const size_t slash = std::min(url.find('/'), url.size());
  std::string_view host, port;
  RETURN_IF_ERROR(SplitAuthority(url.substr(0, slash), &host, &port));
  const int default_port = result.tls ? kHttpsPort : kHttpPort;
  result.host = std::string(host);
  result.port = default_port;
  if (!port.empty()) {
    ASSIGN_OR_RETURN(result.port, ReadPort(port));
  }
  result.authority = host.find(':') == std::string_view::npos ? result.host : absl::StrCat("[", result.host, "]");
  if (result.port != default_port) absl::StrAppend(&result.authority, ":", result.port);

  std::string_view path = url.substr(slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  result.base_path = path.empty() ? "/v1" : std::string(path);
  return result;
}

}  // namespace runnel::inference
