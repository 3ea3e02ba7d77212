#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace runnel::inference {

// The address of an OpenAI-compatible server.
struct UpstreamUrl {
  bool tls = false;
  std::string host;  // a name or an address, without brackets
  int port = 0;
  std::string authority;  // as in the Host header: IPv6 in brackets, no default port
  std::string base_path;  // for example "/v1"; no slash at the end
};

// Parses http://host:port[/path] or https://...; the default path is "/v1". The error says what is wrong. A
// user:password@ (the key belongs in the key file), a query or a fragment is rejected.
absl::StatusOr<UpstreamUrl> ParseUpstreamUrl(std::string_view url);

}  // namespace runnel::inference
