#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace runnel::inference {

// Where an OpenAI-compatible server is.
struct UpstreamUrl {
  bool tls = false;
  std::string host;  // a name or an address, without brackets
  int port = 0;
  std::string authority;  // as in the Host header: brackets about IPv6, no default port
  std::string base_path;  // such as "/v1"; no slash at its end
};

// Reads http://host:port[/path] or https://...; without a path "/v1" is meant. InvalidArgument says what is wrong. No
// user:password@ (the key has a file of its own), no query, no fragment.
absl::StatusOr<UpstreamUrl> ParseUpstreamUrl(std::string_view url);

}  // namespace runnel::inference
