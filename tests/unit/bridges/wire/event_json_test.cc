#include "bridges/wire/event_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/testing/fake_inference_service.h"

namespace runnel::bridge {
namespace {

using testing::DeltaEvent;
using testing::DoneEvent;
using testing::FailedEvent;
using testing::MergedEvent;
using testing::StartedEvent;

std::string Json(const v1::GenerationEvent& event) {
  std::string out;
  AppendEventJson("gen_X", event, &out);
  return out;
}

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

TEST(EventJson, WritesStarted) {
  EXPECT_EQ(Json(StartedEvent()),
            R"({"type":"started","gen":"gen_X","seq":1,"model":"fake","created_at":"2026-11-23T05:00:00Z",)"
            R"("prompt_tokens":9,"ms":0})");
}

TEST(EventJson, WritesMillisecondsOfATimeThatHasThem) {
  v1::GenerationEvent event = StartedEvent();
  event.mutable_started()->mutable_created_at()->set_nanos(42'999'999);
  EXPECT_NE(Json(event).find(R"("created_at":"2026-11-23T05:00:00.042Z")"), std::string::npos) << Json(event);
}

TEST(EventJson, WritesDelta) {
  EXPECT_EQ(Json(DeltaEvent(2, "Hel")),
            R"({"type":"delta","gen":"gen_X","seq":2,"choice":0,"text":"Hel","tokens":1,"ms":2})");
}

TEST(EventJson, WritesFirstSeqOfAMergedDeltaOnly) {
  EXPECT_EQ(Json(MergedEvent(3, 13, "llo")),
            R"({"type":"delta","gen":"gen_X","first_seq":3,"seq":13,"choice":0,"text":"llo","tokens":11,"ms":13})");
  v1::GenerationEvent same = DeltaEvent(5, "x");
  same.set_first_seq(5);
  EXPECT_EQ(Json(same).find("first_seq"), std::string::npos);
}

TEST(EventJson, WritesDone) {
  EXPECT_EQ(Json(DoneEvent(14, "123456789")),
            R"({"type":"done","gen":"gen_X","seq":14,"final":true,"events":14,"choices":[{"index":0,)"
            R"("finish_reason":"stop","text_bytes":9,"crc32":"cbf43926"}],)"
            R"("usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21},"ms":14})");
}

TEST(EventJson, WritesTheDetailsOfTheUsageIfThereAreAny) {
  v1::GenerationEvent event = DoneEvent(14, "");
  event.mutable_done()->mutable_usage()->set_cached_prompt_tokens(8);
  event.mutable_done()->mutable_usage()->set_reasoning_tokens(5);
  EXPECT_NE(Json(event).find(R"("total_tokens":21,"cached_prompt_tokens":8,"reasoning_tokens":5})"), std::string::npos);
}

TEST(EventJson, PadsTheCrc) {
  v1::GenerationEvent event = DoneEvent(3, "");
  event.mutable_done()->mutable_choices(0)->set_text_crc32(0xab);
  EXPECT_NE(Json(event).find(R"("crc32":"000000ab")"), std::string::npos);
}

TEST(EventJson, WritesFailed) {
  EXPECT_EQ(Json(FailedEvent(7, "engine_unavailable")),
            R"({"type":"failed","gen":"gen_X","seq":7,"final":true,"error":{"code":"engine_unavailable",)"
            R"("message":"it \"broke\"","retryable":true},"ms":0})");
}

TEST(EventJson, WritesGap) {
  v1::GenerationEvent event;
  event.set_seq(59);
  event.mutable_gap()->set_requested_after(99);
  event.mutable_gap()->set_first_available(60);
  event.mutable_gap()->set_reason(v1::GAP_REASON_AFTER_BEYOND_END);
  event.mutable_gap()->add_snapshot()->set_text("a\nb");
  event.mutable_gap()->add_snapshot()->set_index(1);
  EXPECT_EQ(Json(event), R"({"type":"gap","gen":"gen_X","seq":59,"requested_after":99,"first_available":60,)"
                         R"("reason":"after_beyond_end","snapshot":{"seq":59,"choices":[{"index":0,"text":"a\nb"},)"
                         R"({"index":1,"text":""}]}})");
}

TEST(EventJson, WritesTheEpochAfterATakeoverOnly) {
  v1::GenerationEvent delta = MergedEvent(3, 13, "llo");
  delta.set_epoch(65537);
  EXPECT_EQ(Json(delta), R"({"type":"delta","gen":"gen_X","first_seq":3,"seq":13,"epoch":65537,"choice":0,)"
                         R"("text":"llo","tokens":11,"ms":13})");
  v1::GenerationEvent gap;
  gap.set_seq(2);
  gap.set_epoch(4294967295);
  gap.mutable_gap()->set_requested_after(9);
  gap.mutable_gap()->set_first_available(3);
  gap.mutable_gap()->set_reason(v1::GAP_REASON_TAIL_LOST);
  EXPECT_EQ(Json(gap), R"({"type":"gap","gen":"gen_X","seq":2,"epoch":4294967295,"requested_after":9,)"
                       R"("first_available":3,"reason":"tail_lost","snapshot":{"seq":2,"choices":[]}})");
  v1::Generation generation;
  generation.set_last_seq(5);
  generation.set_epoch(65537);
  std::string out;
  AppendGenerationJson(generation, &out);
  EXPECT_NE(out.find(R"("last_seq":5,"epoch":65537,"choices":[])"), std::string::npos) << out;
}

TEST(EventJson, EscapesOnlyWhatJsonForbids) {
  EXPECT_EQ(Quoted(""), "\"\"");
  EXPECT_EQ(Quoted("\"\\/"), R"("\"\\/")");
  EXPECT_EQ(Quoted("\b\f\n\r\t"), R"("\b\f\n\r\t")");
  EXPECT_EQ(Quoted(std::string_view("\0\x01\x1f", 3)), R"("\u0000\u0001\u001f")");
  EXPECT_EQ(Quoted("\x7f é 漢 🌊 \u2028"), "\"\x7f é 漢 🌊 \u2028\"");
}

TEST(EventJson, EveryByteSurvivesAParser) {
  std::string text;
  for (char c = 0; c >= 0 && c < 127; ++c) text.push_back(c);
  for (size_t i = 0; i < text.size(); ++i) {
    // Alone, first, last and between others, because runs are copied as a whole.
    for (const std::string& sample : {std::string(1, text[i]), text.substr(i), text.substr(0, i + 1)}) {
      const auto parsed = nlohmann::json::parse(Quoted(sample));
      EXPECT_EQ(parsed.get<std::string>(), sample);
    }
  }
}

TEST(EventJson, WritesTheLargestNumbers) {
  v1::GenerationEvent event = DeltaEvent(18446744073709551615u, "");
  event.set_elapsed_us(18446744073709551615u);
  EXPECT_NE(Json(event).find(R"("seq":18446744073709551615,)"), std::string::npos);
  EXPECT_NE(Json(event).find(R"("ms":18446744073709551})"), std::string::npos);
}

TEST(EventJson, WritesASnapshot) {
  v1::Generation generation;
  generation.set_id("gen_X");
  generation.set_model("m\"");
  generation.set_status(v1::GENERATION_STATUS_RUNNING);
  generation.set_last_seq(5);
  generation.add_choices()->set_text("Hello");
  generation.mutable_usage()->set_prompt_tokens(2);
  generation.mutable_created_at()->set_seconds(1'795'410'000);
  std::string out;
  AppendGenerationJson(generation, &out);
  EXPECT_EQ(out, R"({"id":"gen_X","model":"m\"","status":"running","last_seq":5,"choices":[{"index":0,"text":"Hello",)"
                 R"("finish_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":0,"total_tokens":2},)"
                 R"("created_at":"2026-11-23T05:00:00Z","expires_at":null})");
}

TEST(EventJson, WritesTheErrorAndTheExpiryOfASnapshot) {
  v1::Generation generation;
  generation.set_status(v1::GENERATION_STATUS_FAILED);
  generation.mutable_expire_time()->set_seconds(1'795'410'600);
  *generation.mutable_failed() = FailedEvent(3, "engine_failed").failed();
  std::string out;
  AppendGenerationJson(generation, &out);
  EXPECT_NE(out.find(R"("expires_at":"2026-11-23T05:10:00Z","error":{"code":"engine_failed",)"), std::string::npos)
      << out;
}

TEST(EventJson, WritesAModel) {
  v1::Model model;
  model.set_id("org/m");
  model.set_engine("llama");
  model.set_context_length(2048);
  model.mutable_created_at()->set_seconds(7);
  std::string out;
  AppendModelJson(model, &out);
  EXPECT_EQ(out, R"({"id":"org/m","object":"model","created":7,"owned_by":"runnel","engine":"llama",)"
                 R"("context_length":2048})");
  model.set_context_length(0);
  out.clear();
  AppendModelJson(model, &out);
  EXPECT_EQ(out, R"({"id":"org/m","object":"model","created":7,"owned_by":"runnel","engine":"llama"})");
}

}  // namespace
}  // namespace runnel::bridge
