#include "services/base/grpc_status.h"

#include <grpcpp/support/status.h>

#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "services/base/strings.h"
#include "services/base/utf8.h"

namespace runnel::base {
namespace {

constexpr char kDomain[] = "runnel";
// Message and details are sent in the trailers of a call, for which gRPC's limit is 8 KiB.
constexpr size_t kMaxMessageBytes = 1024;
// Abseil's payloads have type URLs. These are the URLs of the details, so that each payload maps to one Any.
constexpr char kErrorInfoUrl[] = "type.googleapis.com/google.rpc.ErrorInfo";
constexpr char kBadRequestUrl[] = "type.googleapis.com/google.rpc.BadRequest";
constexpr char kRetryInfoUrl[] = "type.googleapis.com/google.rpc.RetryInfo";

// The order of the details: ErrorInfo is always the first, for clients that read only that one.
int RankOf(absl::string_view url) {
  if (url == kErrorInfoUrl) return 0;
  if (url == kBadRequestUrl) return 1;
  return url == kRetryInfoUrl ? 2 : 3;
}

template <typename Message>
bool ReadPayload(const absl::Status& status, const char* url, Message* out) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() && out->ParseFromString(std::string(*payload));
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string_view message, ErrorDetail detail) {
  absl::Status status(code, ToAbsl(message));
  if (!detail.reason.empty()) {
    google::rpc::ErrorInfo info;
    info.set_domain(kDomain);
    info.set_reason(detail.reason);
    for (auto& [key, value] : detail.metadata) (*info.mutable_metadata())[key] = value;
    status.SetPayload(kErrorInfoUrl, absl::Cord(info.SerializeAsString()));
  }
  if (!detail.field.empty()) {
    google::rpc::BadRequest bad_request;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(detail.field);
    violation->set_description(std::string(Shorten(message, kMaxMessageBytes)));
    status.SetPayload(kBadRequestUrl, absl::Cord(bad_request.SerializeAsString()));
  }
  if (detail.retry_after > absl::ZeroDuration()) {
    google::rpc::RetryInfo retry;
    const int64_t nanos = absl::ToInt64Nanoseconds(detail.retry_after);
    retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
    status.SetPayload(kRetryInfoUrl, absl::Cord(retry.SerializeAsString()));
  }
  return status;
}

absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       absl::Duration retry_after) {
  ErrorDetail detail;
  detail.reason = std::string(reason);
  detail.retry_after = retry_after;
  return MakeError(code, message, std::move(detail));
}

absl::Status InvalidField(std::string_view field, std::string_view message, std::string_view reason) {
  ErrorDetail detail;
  detail.reason = std::string(reason);
  detail.field = std::string(field);
  return MakeError(absl::StatusCode::kInvalidArgument, absl::StrCat(ToAbsl(field), ": ", ToAbsl(message)),
                   std::move(detail));
}

ErrorDetail DetailOf(const absl::Status& status) {
  ErrorDetail detail;
  google::rpc::ErrorInfo info;
  if (ReadPayload(status, kErrorInfoUrl, &info)) {
    detail.reason = info.reason();
    for (const auto& [key, value] : info.metadata()) detail.metadata[key] = value;
  }
  google::rpc::BadRequest bad_request;
  if (ReadPayload(status, kBadRequestUrl, &bad_request) && bad_request.field_violations_size() > 0) {
    detail.field = bad_request.field_violations(0).field();
  }
  google::rpc::RetryInfo retry;
  if (ReadPayload(status, kRetryInfoUrl, &retry)) {
    detail.retry_after = absl::Seconds(retry.retry_delay().seconds()) + absl::Nanoseconds(retry.retry_delay().nanos());
  }
  return detail;
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status wire;
  wire.set_code(static_cast<int>(status.code()));
  wire.set_message(std::string(Shorten({status.message().data(), status.message().size()}, kMaxMessageBytes)));
  // Abseil visits payloads in no fixed order.
  std::map<std::pair<int, std::string>, std::string> details;
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    details[{RankOf(url), std::string(url)}] = std::string(payload);
  });
  for (auto& [key, value] : details) {
    auto* any = wire.add_details();
    any->set_type_url(key.second);
    any->set_value(std::move(value));
  }
  return wire;
}

absl::Status FromRpcStatus(const google::rpc::Status& wire) {
  // Abseil and gRPC use the same numbers for codes.
  absl::Status status(static_cast<absl::StatusCode>(wire.code()), wire.message());
  if (status.ok()) return status;
  for (const auto& any : wire.details()) status.SetPayload(any.type_url(), absl::Cord(any.value()));
  return status;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status wire = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(wire.code()), wire.message(),
                      wire.details_size() > 0 ? wire.SerializeAsString() : std::string());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  google::rpc::Status wire;
  if (!status.error_details().empty() && wire.ParseFromString(status.error_details()) &&
      wire.code() == static_cast<int>(status.error_code())) {
    return FromRpcStatus(wire);
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace runnel::base
