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

constexpr std::string_view kGenerationsPath = "/v1/generations";
constexpr std::string_view kModelsPath = "/v1/models";
constexpr std::string_view kResponsesPath = "/v1/responses";

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
      if (high < 0 || low < 0) return absl::InvalidArgumentError("the URL has a bad percent-encoding");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (c == '\0') return absl::InvalidArgumentError("the URL has a NUL");
    decoded.push_back(c);
  }
  return decoded;
}

absl::Status ParseQuery(std::string_view query, std::map<std::string, std::string>* pairs) {
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

// Whether it is a path of OpenAI's that lacks its /v1.
bool LacksVersion(std::string_view path) {
  return path == "/chat/completions" || path == "/completions" || path == "/responses" || path == "/models" ||
         HasPrefix(path, "/responses/") || HasPrefix(path, "/models/");
}

// `path` is still encoded, so that an id may hold an encoded slash.
absl::Status FindEndpoint(std::string_view path, Route* route) {
  if (path == kGenerationsPath) {
    route->endpoint = Endpoint::kGenerations;
  } else if (path == "/v1/chat/completions") {
    route->endpoint = Endpoint::kChatCompletions;
  } else if (path == "/v1/completions") {
    route->endpoint = Endpoint::kCompletions;
  } else if (path == kResponsesPath) {
    route->endpoint = Endpoint::kResponses;
  } else if (path.substr(0, kResponsesPath.size() + 1) == absl::StrCat(base::ToAbsl(kResponsesPath), "/")) {
    const std::string_view rest = path.substr(kResponsesPath.size() + 1);
    const size_t slash = rest.find('/');
    const std::string_view action = slash == std::string_view::npos ? "" : rest.substr(slash);
    ASSIGN_OR_RETURN(route->id, Decode(rest.substr(0, slash), false));
    route->endpoint = action.empty()        ? Endpoint::kResponse
                      : action == "/cancel" ? Endpoint::kResponseCancel
                                            : Endpoint::kNone;
  } else if (path.substr(0, kGenerationsPath.size() + 1) == absl::StrCat(base::ToAbsl(kGenerationsPath), "/")) {
    const std::string_view rest = path.substr(kGenerationsPath.size() + 1);
    const size_t slash = rest.find('/');
    const std::string_view action = slash == std::string_view::npos ? "" : rest.substr(slash);
    ASSIGN_OR_RETURN(route->id, Decode(rest.substr(0, slash), false));
    route->endpoint = action.empty()        ? Endpoint::kGeneration
                      : action == "/events" ? Endpoint::kEvents
                      : action == "/cancel" ? Endpoint::kCancel
                                            : Endpoint::kNone;
  } else if (path == kModelsPath) {
    route->endpoint = Endpoint::kModels;
  } else if (path.substr(0, kModelsPath.size() + 1) == absl::StrCat(base::ToAbsl(kModelsPath), "/")) {
    // Ids of models may have slashes of their own.
    ASSIGN_OR_RETURN(route->id, Decode(path.substr(kModelsPath.size() + 1), false));
    route->endpoint = Endpoint::kModel;
  } else if (path == "/config.json") {
    route->endpoint = Endpoint::kConfig;
  } else if (path == "/health") {
    route->endpoint = Endpoint::kHealth;
  } else if (FindStaticFile(route->path) != nullptr) {
    route->endpoint = Endpoint::kPage;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Route> ParseTarget(std::string_view target) {
  // The absolute form, which proxies send.
  if (const size_t scheme = target.find("://"); scheme != std::string_view::npos && target.front() != '/') {
    const size_t slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  target = target.substr(0, target.find('#'));
  const size_t question = target.find('?');
  const std::string_view path = target.substr(0, question);
  if (path.empty() || (path.front() != '/' && path != "*")) {
    return absl::InvalidArgumentError("the target of the request is no path");
  }
  Route route;
  ASSIGN_OR_RETURN(route.path, Decode(path, false));
  RETURN_IF_ERROR(LacksVersion(path) ? FindEndpoint(absl::StrCat("/v1", base::ToAbsl(path)), &route)
                                     : FindEndpoint(path, &route));
  if (question != std::string_view::npos) RETURN_IF_ERROR(ParseQuery(target.substr(question + 1), &route.query));
  return route;
}

std::string_view AllowedMethods(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kGenerations:
    case Endpoint::kCancel:
    case Endpoint::kChatCompletions:
    case Endpoint::kCompletions:
    case Endpoint::kResponses:
    case Endpoint::kResponseCancel:
      return "POST, OPTIONS";
    case Endpoint::kGeneration:
    case Endpoint::kResponse:
      return "GET, HEAD, DELETE, OPTIONS";
    case Endpoint::kEvents:
    case Endpoint::kNone:
    case Endpoint::kPage:
    case Endpoint::kHealth:
    case Endpoint::kConfig:
    case Endpoint::kModels:
    case Endpoint::kModel:
      break;
  }
  return "GET, HEAD, OPTIONS";
}

bool IsAllowed(Endpoint endpoint, std::string_view method) {
  for (const absl::string_view allowed : absl::StrSplit(base::ToAbsl(AllowedMethods(endpoint)), ", ")) {
    if (allowed == base::ToAbsl(method)) return true;
  }
  return false;
}

}  // namespace runnel::sse
