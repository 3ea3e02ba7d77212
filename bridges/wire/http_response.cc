#include "bridges/wire/http_response.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "services/base/http_status.h"
#include "services/base/random.h"
#include "services/base/strings.h"

namespace runnel::bridge {

HttpResponse ErrorResponse(const HttpError& error) {
  HttpResponse response;
  response.status = error.status;
  response.content_type = "application/json";
  response.body = ErrorBody(error);
  response.headers = error.headers;
  return response;
}

std::string StatusLine(int status) {
  return absl::StrCat("HTTP/1.1 ", status, " ", base::ToAbsl(base::ReasonPhrase(status)), "\r\n");
}

std::string Serialize(const HttpResponse& response) {
  std::string bytes = StatusLine(response.status);
  if (!response.content_type.empty()) absl::StrAppend(&bytes, "content-type: ", response.content_type, "\r\n");
  if (response.sized && response.status != 204 && response.status != 304) {
    absl::StrAppend(&bytes, "content-length: ", response.body.size(), "\r\n");
  }
  absl::StrAppend(&bytes, response.headers,
                  !response.keep_alive ? "connection: close\r\n"
                  : response.http_1_0  ? "connection: keep-alive\r\n"
                                       : "",
                  "\r\n");
  if (!response.head) bytes += response.body;
  return bytes;
}

std::string NewRequestId() {
  static constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz234567";
  std::string id = "req_";
  for (int half = 0; half < 2; ++half) {
    uint64_t bits = base::Random()();
    for (int i = 0; i < 12; ++i, bits >>= 5) id.push_back(kAlphabet[bits & 31]);
  }
  return id;
}

}  // namespace runnel::bridge
