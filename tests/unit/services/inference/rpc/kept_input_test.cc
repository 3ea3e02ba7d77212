// Messages that are kept with the log of their generation.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "services/base/grpc_status.h"
#include "services/base/message_limits.h"
#include "tests/unit/services/inference/rpc/service_fixture.h"

namespace runnel::inference {
namespace {

class KeptInputTest : public ServiceTest {
 protected:
  static v1::GenerateRequest Request(uint32_t keep) {
    v1::GenerateRequest request = ServiceTest::Request(1, 3);
    request.clear_prompt();
    for (const char* content : {"first", "second", "third"}) {
      v1::ChatMessage* message = request.add_messages();
      message->set_role(v1::CHAT_ROLE_USER);
      message->set_content(content);
    }
    request.set_principal("owner");
    request.set_keep_last_messages(keep);
    return request;
  }
  std::string Run(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse response;
    std::string id;
    while (reader->Read(&response)) id = response.event().generation_id();
    EXPECT_TRUE(reader->Finish().ok());
    return id;
  }
  absl::StatusOr<v1::GetGenerationResponse> Get(const std::string& id, uint64_t offset,
                                                const std::string& principal = "owner") {
    v1::GetGenerationRequest request;
    request.set_generation_id(id);
    request.set_principal(principal);
    request.set_max_text_bytes(0);
    request.set_input_offset(offset);
    grpc::ClientContext context;
    v1::GetGenerationResponse response;
    const grpc::Status status = stub_->GetGeneration(&context, request, &response);
    if (!status.ok()) return base::FromGrpcStatus(status);
    return response;
  }
};

TEST_F(KeptInputTest, HasTheLastMessages) {
  const auto two = Get(Run(Request(2)), 0);
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->input_bytes(), two->input().size());
  v1::KeptInput input;
  ASSERT_TRUE(input.ParseFromString(two->input()));
  ASSERT_EQ(input.messages_size(), 2);
  EXPECT_EQ(input.messages(0).content(), "second");
  EXPECT_EQ(input.messages(1).content(), "third");
  const auto none = Get(Run(Request(0)), 0);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->input_bytes(), 0u);
  EXPECT_EQ(none->input(), "");
}

TEST_F(KeptInputTest, IsReadInPieces) {
  v1::GenerateRequest request = Request(2);
  request.mutable_messages(2)->set_content(std::string(base::kMaxInputPieceBytes * 2, 'x'));
  const std::string id = Run(request);
  std::string bytes;
  uint64_t size = 1;
  for (int calls = 0; bytes.size() < size; ++calls) {
    ASSERT_LT(calls, 3);
    const auto piece = Get(id, bytes.size());
    ASSERT_TRUE(piece.ok()) << piece.status();
    EXPECT_LE(piece->input().size(), base::kMaxInputPieceBytes);
    size = piece->input_bytes();
    bytes += piece->input();
  }
  v1::KeptInput input;
  ASSERT_TRUE(input.ParseFromString(bytes));
  EXPECT_EQ(input.messages(1).content(), request.messages(2).content());
  for (const uint64_t after : {size, size + 1, ~uint64_t{0}}) EXPECT_EQ(Get(id, after)->input(), "");
}

TEST_F(KeptInputTest, IsTheOwnersAndEndsWithTheLog) {
  const std::string id = Run(Request(1));
  EXPECT_EQ(base::DetailOf(Get(id, 0, "other").status()).reason, "GENERATION_NOT_FOUND");
  v1::DeleteGenerationRequest request;
  request.set_generation_id(id);
  request.set_principal("owner");
  grpc::ClientContext context;
  v1::DeleteGenerationResponse response;
  ASSERT_TRUE(stub_->DeleteGeneration(&context, request, &response).ok());
  EXPECT_EQ(base::DetailOf(Get(id, 0).status()).reason, "GENERATION_EXPIRED");
}

TEST_F(KeptInputTest, IsNotMoreThanThereIs) {
  v1::GenerateRequest request = Request(4);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = base::FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(base::DetailOf(status).field, "keep_last_messages");
}

}  // namespace
}  // namespace runnel::inference
