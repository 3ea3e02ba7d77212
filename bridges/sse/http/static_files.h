#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "bridges/wire/http_response.h"

namespace runnel::sse {

// A file of bridges/web, built into the binary. The views are never invalidated.
struct StaticFile {
  std::string_view path;  // begins with a slash
  std::string_view content_type;
  std::string_view etag;  // with its quotes
  std::string_view bytes;
};

// Null if there is no such file. "/" is "/index.html".
const StaticFile* FindStaticFile(std::string_view path);

// The header lines of the page and its files. `websocket_origin` is the origin of the WebSocket bridge, or empty.
std::string PageHeaders(const std::string& websocket_origin);

// 200 with the file, or 304 if `if_none_match` has its etag.
bridge::HttpResponse StaticResponse(const StaticFile& file, std::string_view if_none_match,
                                    const std::string& page_headers);

}  // namespace runnel::sse
