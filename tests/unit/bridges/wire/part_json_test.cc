#include "bridges/wire/part_json.h"

#include <gtest/gtest.h>

#include <string>

#include "bridges/wire/event_json.h"
#include "tests/testing/fake_parts.h"

namespace runnel::bridge {
namespace {

using testing::CallEvent;
using testing::PartEvent;

std::string Json(const v1::GenerationEvent& event) {
  std::string out;
  AppendEventJson("gen_X", event, &out);
  return out;
}

TEST(PartJson, WritesDeltasOfEachKind) {
  EXPECT_EQ(
      Json(PartEvent(2, 0, v1::PART_KIND_REASONING, "H\nm")),
      R"({"type":"delta","gen":"gen_X","seq":2,"choice":0,"part":0,"kind":"reasoning","text":"","content":"H\nm","tokens":1,)"
      R"("ms":2})");
  EXPECT_EQ(Json(PartEvent(3, 1, v1::PART_KIND_TEXT, "Hi")),
            R"({"type":"delta","gen":"gen_X","seq":3,"choice":0,"part":1,"text":"Hi","tokens":1,"ms":3})");
  EXPECT_EQ(Json(PartEvent(3, 0, v1::PART_KIND_TEXT, "Hi")),
            R"({"type":"delta","gen":"gen_X","seq":3,"choice":0,"text":"Hi","tokens":1,"ms":3})");
  EXPECT_EQ(
      Json(CallEvent(4, 2, "call_\"", "f")),
      R"({"type":"delta","gen":"gen_X","seq":4,"choice":0,"part":2,"kind":"tool_call","text":"","content":"","id":"call_\"",)"
      R"("name":"f","tokens":1,"ms":4})");
  EXPECT_EQ(
      Json(PartEvent(5, 2, v1::PART_KIND_TOOL_CALL, "{}")),
      R"({"type":"delta","gen":"gen_X","seq":5,"choice":0,"part":2,"kind":"tool_call","text":"","content":"{}","tokens":1,)"
      R"("ms":5})");
  EXPECT_EQ(
      Json(PartEvent(6, 3, v1::PART_KIND_REFUSAL, "no")),
      R"({"type":"delta","gen":"gen_X","seq":6,"choice":0,"part":3,"kind":"refusal","text":"","content":"no","tokens":1,)"
      R"("ms":6})");
}

TEST(PartJson, NeverWritesAnotherKindAsText) {
  v1::GenerationEvent event = PartEvent(2, 0, static_cast<v1::PartKind>(99), "?");
  EXPECT_NE(Json(event).find(R"("part":0,"kind":"unknown","text":"","content":"?")"), std::string::npos);
}

TEST(PartJson, WritesTheEndsOfParts) {
  const std::vector<v1::GenerationEvent> log = testing::LogOfAllParts();
  EXPECT_EQ(
      Json(log.back()),
      R"({"type":"done","gen":"gen_X","seq":11,"final":true,"events":11,"choices":[{"index":0,)"
      R"("finish_reason":"tool_calls","text_bytes":11,"crc32":"54710d23","parts":[)"
      R"({"index":0,"kind":"reasoning","bytes":3,"crc32":"8d4d1d4f"},)"
      R"({"index":1,"kind":"text","bytes":11,"crc32":"54710d23"},)"
      R"({"index":2,"kind":"tool_call","id":"call_a","name":"get_weather","bytes":15,"crc32":"7a3dcc6e","complete":true},)"
      R"({"index":3,"kind":"tool_call","id":"call_b","name":"get_time","bytes":2,"crc32":"a3a6bf43","complete":true}]}],)"
      R"("usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18},"ms":11})");
}

TEST(PartJson, WritesThePartsOfAGap) {
  v1::GenerationEvent event;
  event.set_seq(9);
  event.mutable_gap()->set_first_available(10);
  v1::ChoiceText* choice = event.mutable_gap()->add_snapshot();
  v1::PartText* part = choice->add_parts();
  part->set_kind(v1::PART_KIND_TOOL_CALL);
  part->set_id("c");
  part->set_name("f");
  part->set_content("{");
  EXPECT_NE(Json(event).find(R"("choices":[{"index":0,"text":"","parts":[{"index":0,"kind":"tool_call","id":"c",)"
                             R"("name":"f","content":"{"}]}]}})"),
            std::string::npos)
      << Json(event);
}

TEST(PartJson, ACallInASnapshotIsCompleteOnlyOnceDoneSaysSo) {
  v1::Generation generation;
  v1::PartText* part = generation.add_choices()->add_parts();
  part->set_kind(v1::PART_KIND_TOOL_CALL);
  const auto complete = [&] {
    std::string out;
    AppendGenerationJson(generation, &out);
    EXPECT_NE(out.find("\"complete\":"), std::string::npos) << out;
    return out.find("\"complete\":true") != std::string::npos;
  };
  EXPECT_FALSE(complete());
  v1::PartEnd* end = generation.mutable_done()->add_choices()->add_parts();
  EXPECT_FALSE(complete());
  end->set_complete(true);
  EXPECT_TRUE(complete());
  end->set_index(1);
  EXPECT_FALSE(complete());
}

}  // namespace
}  // namespace runnel::bridge
