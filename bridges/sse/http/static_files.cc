#include "bridges/sse/http/static_files.h"

#include "absl/strings/str_cat.h"
#include "bridges/sse/http/embedded_files.h"
#include "services/base/strings.h"

namespace runnel::sse {

// The page has no inline code. It connects to the bridge that serves it and to the WebSocket bridge.
std::string PageHeaders(const std::string& websocket_origin) {
  return absl::StrCat("cache-control: no-cache\r\ncontent-security-policy: default-src 'self'; connect-src 'self'",
                      websocket_origin.empty() ? "" : " ", websocket_origin,
                      "; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'\r\n"
                      "x-content-type-options: nosniff\r\n"
                      "referrer-policy: no-referrer\r\n");
}

const StaticFile* FindStaticFile(std::string_view path) {
  if (path == "/") path = "/index.html";
  for (const StaticFile& file : EmbeddedFiles()) {
    if (file.path == path) return &file;
  }
  return nullptr;
}

bridge::HttpResponse StaticResponse(const StaticFile& file, std::string_view if_none_match,
                                    const std::string& page_headers) {
  bridge::HttpResponse response;
  response.headers = absl::StrCat("etag: ", base::ToAbsl(file.etag), "\r\n", page_headers);
  if (if_none_match == "*" || if_none_match.find(file.etag) != std::string_view::npos) {
    response.status = 304;
    return response;
  }
  response.content_type = std::string(file.content_type);
  response.body = std::string(file.bytes);
  return response;
}

}  // namespace runnel::sse
