#include "services/base/grpc_status.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/cord.h"
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

TEST(GrpcStatus, PutsErrorInfoFirstWhateverTheOrderOfPayloads) {
  ErrorDetail detail;
  detail.reason = "QUEUE_FULL";
  detail.field = "model";
  detail.retry_after = absl::Seconds(1);
  // Abseil's order changes with the number of payloads, and with each status.
  for (int i = 0; i < 100; ++i) {
    absl::Status error = MakeError(absl::StatusCode::kInvalidArgument, "no", detail);
    if (i % 2 == 1) error.SetPayload("a.first/by.name", absl::Cord("x"));
    std::vector<std::string> names;
    const google::rpc::Status wire = ToRpcStatus(FromRpcStatus(ToRpcStatus(error)));
    for (const auto& any : wire.details()) {
      names.push_back(any.type_url().substr(any.type_url().rfind('.') + 1));
    }
    if (i % 2 == 1) {
      ASSERT_THAT(names, ::testing::ElementsAre("ErrorInfo", "BadRequest", "RetryInfo", "name"));
    } else {
      ASSERT_THAT(names, ::testing::ElementsAre("ErrorInfo", "BadRequest", "RetryInfo"));
    }
  }
}

TEST(GrpcStatus, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(GrpcStatus, TakesAnErrorWithoutDetailsOrWithBrokenOnes) {
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "down")).code(), absl::StatusCode::kUnavailable);
  const absl::Status broken = FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", "\xff not a Status"));
  EXPECT_EQ(broken.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DetailOf(broken).reason, "");
  // Details with a code other than the call's are ignored.
  google::rpc::Status other;
  other.set_code(3);
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", other.SerializeAsString())).code(),
            absl::StatusCode::kNotFound);
}

TEST(GrpcStatus, CutsALongMessage) {
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(std::string(5000, 'x'))).error_message().size(), 1024u);
}

TEST(GrpcStatus, CutsBetweenCharactersAndFitsIntoTheTrailers) {
  std::string message = "x";
  while (message.size() < 5000) message += "\u00e4";
  const absl::Status error = InvalidField("stop", message);
  EXPECT_EQ(ToRpcStatus(error).message().size(), 1023u);
  const grpc::Status status = ToGrpcStatus(error);
  // As sent: the message percent-encoded, the details in base64.
  EXPECT_LT(3 * status.error_message().size() + status.error_details().size() * 4 / 3, 8000u);
  EXPECT_EQ(DetailOf(FromGrpcStatus(status)).field, "stop");
}

TEST(GrpcStatus, InvalidFieldNamesTheField) {
  const absl::Status error = InvalidField("stop", "too long");
  EXPECT_EQ(error.message(), "stop: too long");
  EXPECT_EQ(DetailOf(error).field, "stop");
  EXPECT_EQ(DetailOf(error).reason, "INVALID_FIELD");
}

}  // namespace
}  // namespace runnel::base
