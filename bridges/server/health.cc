#include "bridges/server/health.h"

#include <string>

#include "bridges/server/io_threads.h"

namespace runnel::bridge {

HttpResponse HealthResponse(const IoThread& thread) {
  const std::string reason = thread.not_ready_reason ? thread.not_ready_reason() : std::string();
  HttpResponse response;
  if (reason.empty()) {
    response.content_type = "application/json";
    response.body = R"({"status":"ok"})";
  } else {
    HttpError error;
    error.status = 503;
    error.message = reason;
    error.code = "not_ready";
    error.headers = "retry-after: 1\r\n";
    response = ErrorResponse(error);
  }
  response.headers += "cache-control: no-store\r\n";
  return response;
}

}  // namespace runnel::bridge
