#include "bridges/sse/static_files.h"

#include "absl/strings/str_cat.h"
#include "bridges/sse/embedded_files.h"
#include "services/base/strings.h"

namespace runnel::sse {
namespace {

// The page has no inline code. It connects to wherever its operator says the WebSocket bridge is.
constexpr char kPageHeaders[] =
    "cache-control: no-cache\r\n"
    "content-security-policy: default-src 'self'; connect-src *; img-src 'self' data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'\r\n"
    "x-content-type-options: nosniff\r\n"
    "referrer-policy: no-referrer\r\n";

}  // namespace

const StaticFile* FindStaticFile(std::string_view path) {
  if (path == "/") path = "/index.html";
  for (const StaticFile& file : EmbeddedFiles()) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

bridge::HttpResponse StaticResponse(const StaticFile& file, std::string_view if_none_match) {
  bridge::HttpResponse response;
  response.headers = absl::StrCat("etag: ", base::ToAbsl(file.etag), "\r\n", kPageHeaders);
  if (if_none_match == "*" || if_none_match.find(file.etag) != std::string_view::npos) {
    response.status = 304;
    return response;
  }
  response.content_type = std::string(file.content_type);
  response.body = std::string(file.bytes);
  return response;
}

}  // namespace runnel::sse
