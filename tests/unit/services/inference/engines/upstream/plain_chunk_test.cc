#include "services/inference/engines/upstream/plain_chunk.h"

#include <gtest/gtest.h>

#include <string>

#include "services/inference/engines/upstream/upstream_chunk.h"

namespace runnel::inference {
namespace {

// What both parsers make of it: "0: text" or "0 reasoning: text", or "-" if it is not plain.
std::string Parsed(const std::string& data) {
  const auto plain = ParsePlainChunk(data);
  if (!plain.has_value()) return "-";
  const auto any = ParseAnyUpstreamChunk(data);
  EXPECT_TRUE(any.ok()) << data;
  if (!any.ok()) return "not JSON";
  EXPECT_EQ(any->fragments.size(), 1u) << data;
  EXPECT_FALSE(any->usage.has_value() || any->error.has_value()) << data;
  EXPECT_EQ(any->fragments[0].choice, plain->choice) << data;
  EXPECT_EQ(any->fragments[0].bytes, plain->text) << data;
  EXPECT_EQ(any->fragments[0].kind,
            plain->is_reasoning ? UpstreamFragment::Kind::kReasoning : UpstreamFragment::Kind::kText)
      << data;
  EXPECT_TRUE(any->fragments[0].logprobs.empty()) << data;
  return std::to_string(plain->choice) + (plain->is_reasoning ? " reasoning: " : ": ") + plain->text;
}

std::string Choice(const std::string& members) { return R"({"id":"c","choices":[{)" + members + "}]}"; }

TEST(PlainChunk, TakesTheChunksOfServers) {
  EXPECT_EQ(Parsed(R"({"id":"chatcmpl-B9MB","object":"chat.completion.chunk","created":1741569952,"model":"gpt-4.1",)"
                   R"("service_tier":"default","system_fingerprint":"fp_b3","choices":[{"index":0,"delta":)"
                   R"({"content":" \"w\u00f6rld\"\n"},"logprobs":null,"finish_reason":null}],"usage":null,)"
                   R"("obfuscation":"abc"})"),
            "0:  \"w\u00f6rld\"\n");
  EXPECT_EQ(Parsed(R"({"choices":[{"finish_reason":null,"index":1,"delta":{"role":"assistant","content":"sea"}}],)"
                   R"("created":1741569952,"id":"x","object":"chat.completion.chunk","timings":{"n":[1]}})"),
            "1: sea");
  EXPECT_EQ(Parsed(Choice(R"("index":2,"text":"t","logprobs":null,"finish_reason":null)")), "2: t");
  EXPECT_EQ(Parsed(Choice(R"("delta":{"content":"no index","tool_calls":null})")), "0: no index");
}

TEST(PlainChunk, TakesReasoning) {
  EXPECT_EQ(Parsed(Choice(R"("delta":{"reasoning_content":"a","content":null})")), "0 reasoning: a");
  EXPECT_EQ(Parsed(Choice(R"("index":1,"delta":{"role":"assistant","content":"","reasoning":"a"})")), "1 reasoning: a");
  EXPECT_EQ(Parsed(Choice(R"("delta":{"reasoning":"a","reasoning_content":"b"})")), "0 reasoning: b");
  EXPECT_EQ(Parsed(Choice(R"("delta":{"reasoning":"a","reasoning_content":"","thinking":null})")), "0 reasoning: a");
  EXPECT_EQ(Parsed(Choice(R"("delta":{"thinking":"a"})")), "0 reasoning: a");
  EXPECT_EQ(Parsed(Choice(R"("delta":{"content":"a","reasoning_content":""})")), "0: a");
}

TEST(PlainChunk, LeavesAllOthers) {
  const std::string text = R"("delta":{"content":"a"})";
  ASSERT_EQ(Parsed(Choice(text)), "0: a");
  for (const std::string& data : {
           std::string(),
           std::string("[DONE]"),
           std::string("[]"),
           Choice(text) + "x",
           Choice(text).substr(1),
           R"({"choices":[]})" + std::string(),
           R"({"choices":[{)" + text + "},{" + text + "}]}",
           R"({"choices":[{)" + text + R"(}],"choices":[{)" + text + "}]}",
           R"({"choices":[{)" + text + R"(}],"usage":{"prompt_tokens":1}})",
           R"({"choices":[{)" + text + R"(}],"error":"e"})",
           R"({"choices":[{)" + text + R"(}],"object":"error"})",
           Choice(R"("delta":{"content":""})"),
           Choice(R"("delta":{"content":null})"),
           Choice(R"("delta":{"content":["a"]})"),
           Choice(R"("delta":{"content":"a","content":"b"})"),
           Choice(R"("delta":{"content":"a","reasoning_content":"b"})"),
           Choice(R"("delta":{"content":"a","content":null})"),
           Choice(R"("delta":{"reasoning":"a","reasoning":null})"),
           Choice(R"("delta":{"reasoning":""})"),
           Choice(R"("delta":{"reasoning":{"text":"a"}})"),
           Choice(R"("delta":{"reasoning":"a"},"text":"b")"),
           Choice(R"("delta":{"content":"a","tool_calls":[]})"),
           Choice(R"("delta":{"role":"assistant"},"text":"a")"),
           Choice(R"("delta":"a")"),
           Choice(text + R"(,"finish_reason":"stop")"),
           Choice(text + R"(,"logprobs":{"content":[]})"),
           Choice(text + R"(,"index":-1)"),
           Choice(text + R"(,"index":4294967296)"),
           Choice(text + R"(,"index":1.0)"),
           Choice(text + R"(,"message":{})"),
           Choice("\"delta\":{\"content\":\"\xff\"}"),
           Choice(R"("delta":{"content":"\ud83d"})"),
           Choice(R"("delta":{"content":")" + std::string(5000, 'a') + "\"}"),
       }) {
    EXPECT_EQ(Parsed(data), "-") << data;
  }
}

}  // namespace
}  // namespace runnel::inference
