#include "bridges/sse/http/routes.h"

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bridges/sse/http/static_files.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

absl::StatusOr<std::string> Decode(std::string_view text, bool plus_is_space) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
      if (high < 0 || low < 0) return absl::InvalidArgumentError("the URL has an invalid percent-encoding");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (c == '\0') return absl::InvalidArgumentError("the URL contains a NUL");
    decoded.push_back(c);
  }
  return decoded;
}

absl::Status ParseQuery(std::string_view query, bridge::Query* pairs) {
  for (const absl::string_view part : absl::StrSplit(base::ToAbsl(query), '&', absl::SkipEmpty())) {
    const std::string_view text(part.data(), part.size());
    const size_t equals = text.find('=');
    ASSIGN_OR_RETURN(std::string key, Decode(text.substr(0, equals), true));
    std::string value;
    if (equals != std::string_view::npos) {
      ASSIGN_OR_RETURN(value, Decode(text.substr(equals + 1), true));
    }
    const auto [pair, is_new] = pairs->try_emplace(key, std::move(value));
    if (is_new) continue;
    if (!absl::EndsWith(key, "[]")) return base::InvalidField(key, "is given twice");
    absl::StrAppend(&pair->second, ",", value);
  }
  return absl::OkStatus();
}

bool HasPrefix(std::string_view path, std::string_view prefix) { return path.substr(0, prefix.size()) == prefix; }

// Whether `path` is one of OpenAI's without its /v1.
bool LacksVersion(std::string_view path) {
  return path == "/chat/completions" || path == "/completions" || path == "/responses" || path == "/models" ||
         HasPrefix(path, "/responses/") || HasPrefix(path, "/models/");
}

constexpr std::string_view kRead = "GET, HEAD, OPTIONS";
constexpr std::string_view kReadOrDelete = "GET, HEAD, DELETE, OPTIONS";
constexpr std::string_view kPost = "POST, OPTIONS";

// The action of an endpoint whose id is the rest of the path, with its slashes.
constexpr std::string_view kRestIsId = "*";

// One row for each path. api.cc has the handlers of the endpoints under /v1.
struct EndpointRow {
  Endpoint endpoint;
  std::string_view path;    // with a slash at its end, an id follows
  std::string_view action;  // what follows the id
  EndpointTraits traits;
};
constexpr EndpointRow kEndpoints[] = {
    {Endpoint::kConfig, "/config.json", "", {kRead}},
    {Endpoint::kHealth, "/health", "", {kRead}},
    {Endpoint::kGenerations, "/v1/generations", "", {.methods = kPost, .json_body = true, .follows = true}},
    {Endpoint::kGeneration, "/v1/generations/", "", {kReadOrDelete}},
    {Endpoint::kEvents, "/v1/generations/", "/events", {.methods = kRead, .follows = true}},
    {Endpoint::kCancel, "/v1/generations/", "/cancel", {kPost}},
    {Endpoint::kModels, "/v1/models", "", {kRead}},
    {Endpoint::kModel, "/v1/models/", kRestIsId, {kRead}},
    {Endpoint::kChatCompletions, "/v1/chat/completions", "", {.methods = kPost, .json_body = true, .follows = true}},
    {Endpoint::kCompletions, "/v1/completions", "", {.methods = kPost, .json_body = true, .follows = true}},
    {Endpoint::kResponses, "/v1/responses", "", {.methods = kPost, .json_body = true, .follows = true}},
    {Endpoint::kResponse, "/v1/responses/", "", {kReadOrDelete}},
    {Endpoint::kResponseCancel, "/v1/responses/", "/cancel", {kPost}},
};
// The page's files, and paths that do not exist.
constexpr EndpointTraits kOtherTraits = {kRead};

// `path` is still encoded, so that an id may hold an encoded slash.
absl::Status FindEndpoint(std::string_view path, Route* route) {
  for (const EndpointRow& row : kEndpoints) {
    if (row.path.back() != '/') {
      if (path != row.path) continue;
      route->endpoint = row.endpoint;
      return absl::OkStatus();
    }
    if (!HasPrefix(path, row.path)) continue;
    const std::string_view rest = path.substr(row.path.size());
    const size_t slash = row.action == kRestIsId ? std::string_view::npos : rest.find('/');
    ASSIGN_OR_RETURN(route->id, Decode(rest.substr(0, slash), false));
    const std::string_view action = slash == std::string_view::npos ? "" : rest.substr(slash);
    if (row.action != kRestIsId && action != row.action) continue;
    route->endpoint = row.endpoint;
    return absl::OkStatus();
  }
  if (FindStaticFile(route->path) != nullptr) route->endpoint = Endpoint::kPage;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Route> ParseTarget(std::string_view target) {
  // Proxies send the absolute form.
  if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && target.front() != '/') {
    const size_t slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find('#'));
  const size_t question = target.find('?');
  const std::string_view path = target.substr(0, question);
  if (path.empty() || (path.front() != '/' && path != "*")) {
    return absl::InvalidArgumentError("the request target is not a path");
  }
  Route route;
  ASSIGN_OR_RETURN(route.path, Decode(path, false));
  RETURN_IF_ERROR(LacksVersion(path) ? FindEndpoint(absl::StrCat("/v1", base::ToAbsl(path)), &route)
                                     : FindEndpoint(path, &route));
  if (question != std::string_view::npos) RETURN_IF_ERROR(ParseQuery(target.substr(question + 1), &route.query));
  return route;
}

const EndpointTraits& TraitsOf(Endpoint endpoint) {
  for (const EndpointRow& row : kEndpoints) {
    if (row.endpoint == endpoint) return row.traits;
  }
  return kOtherTraits;
}

bool IsAllowed(Endpoint endpoint, std::string_view method) {
  for (const absl::string_view allowed : absl::StrSplit(base::ToAbsl(TraitsOf(endpoint).methods), ", ")) {
    if (allowed == base::ToAbsl(method)) return true;
  }
  return false;
}

}  // namespace runnel::sse
