#include "services/base/grpc_status.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <string>

#include "google/rpc/status.pb.h"

namespace runnel::base {
namespace {

TEST(GrpcStatus, KeepsCodeMessageAndDetailBothWays) {
  ErrorDetail detail;
  detail.reason = "QUEUE_FULL";
  detail.metadata["limit"] = "7";
  detail.field = "messages[2].role";
  detail.retry_after = absl::Milliseconds(1500);
  const absl::Status error = MakeError(absl::StatusCode::kResourceExhausted, "no room", detail);

  for (const absl::Status& back : {FromGrpcStatus(ToGrpcStatus(error)), FromRpcStatus(ToRpcStatus(error))}) {
    EXPECT_EQ(back.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(back.message(), "no room");
    EXPECT_EQ(DetailOf(back).reason, "QUEUE_FULL");
    EXPECT_EQ(DetailOf(back).metadata.at("limit"), "7");
    EXPECT_EQ(DetailOf(back).field, "messages[2].role");
    EXPECT_EQ(DetailOf(back).retry_after, absl::Milliseconds(1500));
  }
}

TEST(GrpcStatus, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(GrpcStatus, TakesAnErrorWithoutDetailsOrWithBrokenOnes) {
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "down")).code(),
            absl::StatusCode::kUnavailable);
  const absl::Status broken = FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", "\xff not a Status"));
  EXPECT_EQ(broken.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DetailOf(broken).reason, "");
  // Details of another code than the call's are not believed.
  google::rpc::Status other;
  other.set_code(3);
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", other.SerializeAsString())).code(),
            absl::StatusCode::kNotFound);
}

TEST(GrpcStatus, CutsALongMessage) {
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(std::string(5000, 'x'))).error_message().size(), 1024u);
}

TEST(GrpcStatus, InvalidFieldNamesTheField) {
  const absl::Status error = InvalidField("stop", "too long");
  EXPECT_EQ(error.message(), "stop: too long");
  EXPECT_EQ(DetailOf(error).field, "stop");
  EXPECT_EQ(DetailOf(error).reason, "INVALID_FIELD");
}

}  // namespace
}  // namespace runnel::base
