#include "services/inference/rpc/request_from_proto.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "services/base/grpc_status.h"

namespace runnel::inference {
namespace {

const std::vector<ModelInfo>& Models() {
  static const std::vector<ModelInfo> kModels = {{"first", "scripted", 0, absl::UnixEpoch()},
                                                 {"second", "llama", 2048, absl::UnixEpoch()}};
  return kModels;
}

v1::GenerateRequest Valid() {
  v1::GenerateRequest proto;
  proto.set_prompt("p");
  return proto;
}

absl::StatusOr<GenerationRequest> Convert(const v1::GenerateRequest& proto) {
  return RequestFromProto(proto, RequestDefaults(), Models());
}

TEST(RequestFromProto, FillsDefaults) {
  const auto request = Convert(Valid());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->model, "first");
  EXPECT_EQ(request->max_tokens, std::nullopt);
  EXPECT_FALSE(request->seed_given);
  EXPECT_EQ(request->choice_count, 1u);
  EXPECT_EQ(request->detach_timeout, absl::Seconds(60));
  EXPECT_NE(request->seed, 0u);
}

TEST(RequestFromProto, KeepsTheFieldsThatAreSet) {
  v1::GenerateRequest proto;
  auto* message = proto.add_messages();
  message->set_role(v1::CHAT_ROLE_SYSTEM);
  message->set_content("be brief");
  proto.set_model("second");
  proto.mutable_sampling()->set_temperature(0);
  proto.mutable_sampling()->set_seed(5);
  proto.set_keep_when_detached(true);
  const auto request = Convert(proto);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->messages[0].role, ChatRole::kSystem);
  EXPECT_EQ(request->sampling.temperature, 0.0f);
  EXPECT_FALSE(request->sampling.top_p.has_value());
  EXPECT_EQ(request->seed, 5u);
  EXPECT_TRUE(request->seed_given);
  EXPECT_EQ(request->detach_timeout, absl::InfiniteDuration());
}

std::string Nested(int depth) {
  std::string schema;
  for (int i = 0; i < depth; ++i) schema += R"({"a":)";
  return schema + "1" + std::string(static_cast<size_t>(depth), '}');
}

TEST(RequestFromProto, KeepsTheOutputFormat) {
  v1::GenerateRequest proto = Valid();
  EXPECT_FALSE(Convert(proto)->top_logprobs.has_value());
  proto.set_top_logprobs(0);
  (*proto.mutable_sampling()->mutable_logit_bias())[7] = -100;
  proto.mutable_output_format()->set_json_schema(Nested(64));
  auto request = Convert(proto);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->top_logprobs, 0u);
  EXPECT_EQ(request->sampling.logit_bias.at(7), -100);
  EXPECT_EQ(request->output_format.kind, OutputFormat::Kind::kJsonSchema);
  EXPECT_EQ(request->output_format.json_schema, Nested(64));
  proto.mutable_output_format()->set_json_object(true);
  EXPECT_EQ(Convert(proto)->output_format.kind, OutputFormat::Kind::kJsonObject);
}

TEST(RequestFromProto, KeepsExtraFieldsUpToTheirLimits) {
  v1::GenerateRequest proto = Valid();
  (*proto.mutable_extra_fields())[std::string(64, 'n')] = std::string(65'505, 'v');
  for (int i = 0; i < 31; ++i) (*proto.mutable_extra_fields())[std::to_string(i)] = "1";
  const auto request = Convert(proto);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->extra_fields.size(), 32u);
  EXPECT_EQ(request->extra_fields.at("7"), "1");
}

TEST(RequestFromProto, NamesTheLimitOfTokens) {
  v1::GenerateRequest proto = Valid();
  proto.set_max_tokens(1'000'000'000);
  EXPECT_EQ(Convert(proto).status().message(), "max_tokens: must be at most 1000000");
  proto.set_max_tokens(0);
  EXPECT_EQ(Convert(proto).status().message(), "max_tokens: must be a whole number of at least 1");
}

void SetTimeout(v1::GenerateRequest* request, int64_t seconds, int32_t nanos) {
  request->mutable_detach_timeout()->set_seconds(seconds);
  request->mutable_detach_timeout()->set_nanos(nanos);
}

struct HostileRow {
  const char* field;
  std::function<void(v1::GenerateRequest*)> spoil;
};

TEST(RequestFromProto, RejectsValuesOutOfRangeAndNamesTheField) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<HostileRow> rows = {
      {"messages", [](auto* r) { r->clear_prompt(); }},
      {"messages", [](auto* r) { r->add_messages()->set_role(v1::CHAT_ROLE_USER); }},
      {"messages[0].role", [](auto* r) { r->clear_prompt(), r->add_messages()->set_content("x"); }},
      {"temperature", [](auto* r) { r->mutable_sampling()->set_temperature(2.1f); }},
      {"temperature", [=](auto* r) { r->mutable_sampling()->set_temperature(nan); }},
      {"top_p", [](auto* r) { r->mutable_sampling()->set_top_p(0); }},
      {"top_p", [=](auto* r) { r->mutable_sampling()->set_top_p(nan); }},
      {"top_k", [](auto* r) { r->mutable_sampling()->set_top_k(0); }},
      {"min_p", [](auto* r) { r->mutable_sampling()->set_min_p(-1); }},
      {"presence_penalty", [](auto* r) { r->mutable_sampling()->set_presence_penalty(3); }},
      {"frequency_penalty", [](auto* r) { r->mutable_sampling()->set_frequency_penalty(-3); }},
      {"max_tokens", [](auto* r) { r->set_max_tokens(0); }},
      {"max_tokens", [](auto* r) { r->set_max_tokens(1'000'000'000); }},
      {"output_format.json_schema",
       [](auto* r) { r->mutable_output_format()->set_json_schema(std::string("{}\0junk", 7)); }},
      {"extra_fields", [](auto* r) { (*r->mutable_extra_fields())[""] = "1"; }},
      {"extra_fields", [](auto* r) { (*r->mutable_extra_fields())[std::string(65, 'n')] = "1"; }},
      {"extra_fields", [](auto* r) { (*r->mutable_extra_fields())["n"] = std::string(65'537, 'v'); }},
      {"extra_fields",
       [](auto* r) {
         for (int i = 0; i < 33; ++i) (*r->mutable_extra_fields())[std::to_string(i)] = "1";
       }},
      {"choice_count", [](auto* r) { r->set_choice_count(0); }},
      {"choice_count", [](auto* r) { r->set_choice_count(9); }},
      {"stop", [](auto* r) { r->add_stop(""); }},
      {"stop", [](auto* r) { r->add_stop(std::string(129, 'x')); }},
      {"stop",
       [](auto* r) {
         for (int i = 0; i < 5; ++i) r->add_stop("x");
       }},
      {"detach_timeout", [](auto* r) { r->mutable_detach_timeout()->set_seconds(-1); }},
      {"detach_timeout", [](auto* r) { r->mutable_detach_timeout()->set_seconds(1'000'000'000); }},
      // Not normalised as duration.proto requires.
      {"detach_timeout", [](auto* r) { SetTimeout(r, 1, -5); }},
      {"detach_timeout", [](auto* r) { SetTimeout(r, 0, -1); }},
      {"detach_timeout", [](auto* r) { SetTimeout(r, -1, 2'000'000'000); }},
      {"detach_timeout", [](auto* r) { SetTimeout(r, 1, 1'000'000'000); }},
      {"detach_timeout", [](auto* r) { SetTimeout(r, std::numeric_limits<int64_t>::max(), 999'999'999); }},
      {"request_id", [](auto* r) { r->set_request_id("with blank"); }},
      {"request_id", [](auto* r) { r->set_request_id("\xc3\xa9"); }},
      {"request_id", [](auto* r) { r->set_request_id(std::string(129, 'x')); }},
      {"metadata",
       [](auto* r) {
         for (int i = 0; i < 17; ++i) (*r->mutable_metadata())[std::to_string(i)] = "";
       }},
      {"metadata", [](auto* r) { (*r->mutable_metadata())[""] = "x"; }},
      {"metadata", [](auto* r) { (*r->mutable_metadata())["k"] = std::string(513, 'x'); }},
      {"logit_bias", [](auto* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = 100.5f; }},
      {"logit_bias", [](auto* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = -101; }},
      {"logit_bias", [=](auto* r) { (*r->mutable_sampling()->mutable_logit_bias())[1] = nan; }},
      {"logit_bias",
       [](auto* r) {
         for (uint32_t i = 0; i < 1025; ++i) (*r->mutable_sampling()->mutable_logit_bias())[i] = 0;
       }},
      {"top_logprobs", [](auto* r) { r->set_top_logprobs(21); }},
      {"output_format.json_object", [](auto* r) { r->mutable_output_format()->set_json_object(false); }},
      {"output_format.json_schema", [](auto* r) { r->mutable_output_format()->set_json_schema(""); }},
      {"output_format.json_schema", [](auto* r) { r->mutable_output_format()->set_json_schema("{"); }},
      {"output_format.json_schema", [](auto* r) { r->mutable_output_format()->set_json_schema("{} {}"); }},
      {"output_format.json_schema", [](auto* r) { r->mutable_output_format()->set_json_schema("[]"); }},
      {"output_format.json_schema", [](auto* r) { r->mutable_output_format()->set_json_schema("\"object\""); }},
      {"output_format.json_schema", [](auto* r) { r->mutable_output_format()->set_json_schema(Nested(65)); }},
      {"output_format.json_schema", [](auto* r) { r->mutable_output_format()->set_json_schema(Nested(5000)); }},
      {"output_format.json_schema",
       [](auto* r) { r->mutable_output_format()->set_json_schema("{}" + std::string(32 << 10, ' ')); }},
      {"annotation", [](auto* r) { r->set_annotation(std::string((16 << 10) + 1, 'x')); }},
  };
  for (const HostileRow& row : rows) {
    v1::GenerateRequest proto = Valid();
    row.spoil(&proto);
    const auto request = Convert(proto);
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << row.field;
    EXPECT_EQ(base::DetailOf(request.status()).field, row.field);
  }
}

TEST(RequestFromProto, RejectsAnUnknownModel) {
  v1::GenerateRequest proto = Valid();
  proto.set_model("third");
  EXPECT_EQ(Convert(proto).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(base::DetailOf(Convert(proto).status()).reason, "MODEL_NOT_FOUND");
}

TEST(RequestFromProto, FingerprintDependsOnTheContentOnly) {
  v1::GenerateRequest one = Valid();
  v1::GenerateRequest two = Valid();
  for (int i = 0; i < 10; ++i) (*one.mutable_metadata())[std::to_string(i)] = "v";
  for (int i = 9; i >= 0; --i) (*two.mutable_metadata())[std::to_string(i)] = "v";
  two.set_request_id("another");
  EXPECT_EQ(RequestFingerprint(one), RequestFingerprint(two));
  two.set_max_tokens(5);
  EXPECT_NE(RequestFingerprint(one), RequestFingerprint(two));
}

TEST(RequestFromProto, FingerprintIsThatOfOtherBuilds) {
  v1::GenerateRequest request;
  request.set_model("m");
  request.set_prompt("hello");
  EXPECT_EQ(RequestFingerprint(request), 16546290805846636325u);
}

}  // namespace
}  // namespace runnel::inference
