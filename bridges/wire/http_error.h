#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

// The one mapping from errors inside the process to errors that clients see. Pure functions.
namespace runnel::bridge {

// An error as a client sees it: {"error":{"message","type","param","code"}} with a status.
struct HttpError {
  int status = 500;
  std::string type = "server_error";
  std::string message;
  std::string param;    // empty: null
  std::string code;     // empty: null
  std::string headers;  // further header lines, for example retry-after, each ended by \r\n
};

// The reason of an error decides first (GENERATION_EXPIRED: 410), then its code. Internal errors and timeouts carry
// x-should-retry: false, because client libraries may retry by themselves and the failed request may have started a
// generation.
HttpError HttpErrorOf(const absl::Status& status);
// The same without x-should-retry, for a request that is safe to repeat: it only reads, or it starts a generation under
// an idempotency key.
HttpError RepeatableErrorOf(const absl::Status& status);
// An error that only HTTP knows: 404 for an unknown path, 405, 413, 415. Its type is invalid_request_error.
HttpError InvalidRequest(int status, std::string_view message, std::string_view code = "");
// The JSON object, on one line without a newline at its end.
std::string ErrorBody(const HttpError& error);

}  // namespace runnel::bridge
