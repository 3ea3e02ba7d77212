#include "services/inference/engines/upstream/upstream_request.h"

#include <gtest/gtest.h>

namespace runnel::inference {
namespace {

TEST(UpstreamRequest, WritesAChatWithAllThatCanBeSet) {
  GenerationRequest request;
  request.model = "public-name";
  request.messages = {{ChatRole::kSystem, "Be \"brief\"."}, {ChatRole::kUser, "Hi\n"}, {ChatRole::kAssistant, "é"}};
  request.sampling = {0.7f, 0.95f, 40, 0.05f, -1.5f, 2.0f, {}};
  request.seed = 42;
  request.max_tokens = 128;
  request.choice_count = 3;
  request.stop = {"\n\n", "END"};
  EXPECT_EQ(UpstreamRoute(request), "/chat/completions");
  EXPECT_EQ(UpstreamBody(request, "org/model"),
            R"({"model":"org/model","messages":[{"role":"system","content":"Be \"brief\"."},)"
            R"({"role":"user","content":"Hi\n"},{"role":"assistant","content":"é"}],"stream":true,)"
            R"("stream_options":{"include_usage":true},"max_tokens":128,"n":3,"stop":["\n\n","END"],"seed":42,)"
            R"("temperature":0.7,"top_p":0.95,"top_k":40,"min_p":0.05,"presence_penalty":-1.5,)"
            R"("frequency_penalty":2.0})");
}

TEST(UpstreamRequest, WritesAPlainPromptWithNothingThatWasNotAskedFor) {
  GenerationRequest request;
  request.prompt = "Once";
  request.seed = 1;
  request.max_tokens = 1;
  request.extra_fields = {{"ignore_eos", "true"}};
  EXPECT_EQ(UpstreamRoute(request), "/completions");
  EXPECT_EQ(UpstreamBody(request, "m"),
            R"({"model":"m","prompt":"Once","stream":true,"stream_options":{"include_usage":true},)"
            R"("max_tokens":1,"seed":1})");
}

TEST(UpstreamRequest, PassesOnWhatTheAnswerShallBe) {
  GenerationRequest request;
  request.prompt = "x";
  request.seed = 1;
  request.max_tokens = 1;
  request.top_logprobs = 3;
  request.sampling.logit_bias = {{50256, -100.0f}, {7, 0.5f}};
  request.output_format.kind = OutputFormat::Kind::kJsonObject;
  const std::string head = R"("stream":true,"stream_options":{"include_usage":true},"max_tokens":1,"seed":1,)"
                           R"("logit_bias":{"7":0.5,"50256":-100.0},)";
  EXPECT_EQ(UpstreamBody(request, "m"),
            R"({"model":"m","prompt":"x",)" + head + R"("logprobs":3,"response_format":{"type":"json_object"}})");
  request.prompt.clear();
  request.messages = {{ChatRole::kUser, "x"}};
  request.output_format = {OutputFormat::Kind::kJsonSchema, R"({"type":"object"})"};
  EXPECT_EQ(UpstreamBody(request, "m"),
            R"({"model":"m","messages":[{"role":"user","content":"x"}],)" + head +
                R"("logprobs":true,"top_logprobs":3,"response_format":{"type":"json_schema","json_schema":)"
                R"({"name":"answer","strict":true,"schema":{"type":"object"}}}})");
}

TEST(UpstreamRequest, SendsNoSeedThatAServerCannotHold) {
  GenerationRequest request;
  request.prompt = "x";
  request.seed = 0xFFFFFFFF'FFFFFFFF;
  EXPECT_NE(UpstreamBody(request, "m").find(R"("seed":2147483647)"), std::string::npos);
}

TEST(UpstreamRequest, ReplacesBytesThatJsonCannotHold) {
  GenerationRequest request;
  request.prompt = "a\xFF";
  EXPECT_NE(UpstreamBody(request, "m\xC3").find("\"prompt\":\"a\xEF\xBF\xBD\""), std::string::npos);
}

}  // namespace
}  // namespace runnel::inference
