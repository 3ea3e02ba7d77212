#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace grpc {
class Status;
}
namespace google::rpc {
class Status;
}

// Errors inside a process are absl::Status; grpc::Status and google.rpc.Status are used at its boundaries only. Details
// are payloads of the absl::Status and become google.rpc details (ErrorInfo, BadRequest, RetryInfo) on the wire, and
// back.
namespace runnel::base {

// The parts of an error in addition to its code and message. Empty or zero: absent.
struct ErrorDetail {
  std::string reason;                           // ErrorInfo.reason, UPPER_SNAKE_CASE
  std::map<std::string, std::string> metadata;  // ErrorInfo.metadata
  std::string field;                            // BadRequest: path of the field at fault, for example messages[2].role
  absl::Duration retry_after;                   // RetryInfo
};

// An error with a reason that clients can switch on (ErrorInfo.reason) and, unless zero, the time to wait before a
// retry. The message is for people and never contains prompts or output.
absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       absl::Duration retry_after = absl::ZeroDuration());

// An error with any detail.
absl::Status MakeError(absl::StatusCode code, std::string_view message, ErrorDetail detail);

// InvalidArgument about one field of a request. The message is prefixed with the field's path.
absl::Status InvalidField(std::string_view field, std::string_view message, std::string_view reason = "INVALID_FIELD");

// The detail of an error that was created here or received; empty if it has none.
ErrorDetail DetailOf(const absl::Status& status);

// Both directions keep code, message and detail. On the wire the message is cut to 1 KiB and the details have a fixed
// order: ErrorInfo, BadRequest, RetryInfo, then others by their type.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);
google::rpc::Status ToRpcStatus(const absl::Status& status);
absl::Status FromRpcStatus(const google::rpc::Status& status);

}  // namespace runnel::base
