#pragma once

#include <string>

#include "bridges/wire/http_error.h"

namespace runnel::bridge {

// A whole HTTP/1.1 response.
struct HttpResponse {
  int status = 200;
  std::string content_type;  // empty: no body, and no content-length with a 204
  std::string body;
  std::string headers;  // further header lines, each ended by \r\n
  bool keep_alive = true;
  bool head = false;      // the response to HEAD: all headers, no body
  bool sized = true;      // false: no content-length, as for HEAD where GET gives a stream
  bool http_1_0 = false;  // the request was HTTP/1.0, whose clients expect the connection to close by default
};
HttpResponse ErrorResponse(const HttpError& error);
std::string Serialize(const HttpResponse& response);
// `HTTP/1.1 200 OK\r\n`
std::string StatusLine(int status);

// `req_` and 24 random characters.
std::string NewRequestId();

}  // namespace runnel::bridge
