// Reasoning, refusals and tool calls of upstreams, in the shapes that servers use.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/request_limits.h"
#include "services/inference/engines/upstream/upstream_failure.h"
#include "services/inference/engines/upstream/upstream_output.h"
#include "services/inference/generation/wake_set.h"
#include "tests/testing/fake_openai_server.h"
#include "tests/unit/services/inference/engines/upstream/fake_sink.h"

namespace runnel::inference {
namespace {

using ::runnel::testing::FakeSink;
using Fake = ::runnel::testing::FakeOpenAiServer;

std::string Delta(const std::string& delta, const std::string& id = "r") {
  return R"(data: {"id":")" + id + R"(","choices":[{"index":0,"delta":)" + delta + "}]}\n\n";
}
// Each item is an entry of tool_calls.
std::string Calls(const std::string& entries, const std::string& id = "r") {
  return Delta(R"({"tool_calls":[)" + entries + "]}", id);
}
// An entry; empty fields are left out.
std::string Call(const std::string& index, const std::string& id, const std::string& name,
                 const std::string& arguments) {
  std::string entry = "{\"type\":\"function\"";
  if (!index.empty()) entry += ",\"index\":" + index;
  if (!id.empty()) entry += ",\"id\":\"" + id + "\"";
  entry += ",\"function\":{";
  if (!name.empty()) entry += "\"name\":\"" + name + "\"";
  if (!arguments.empty()) entry += std::string(name.empty() ? "" : ",") + "\"arguments\":\"" + arguments + "\"";
  return entry + "}}";
}

std::string Story(const std::string& bytes, const UpstreamOutput::Options& options = {}) {
  FakeSink sink;
  WakeSet wake;
  UpstreamOutput output(1, options, &sink);
  output.Add(bytes, &wake);
  output.Finish(Unavailable("cut"), &wake);
  EXPECT_TRUE(output.ended());
  return sink.Story();
}

const std::string kEnd = Fake::ChatFinish("tool_calls") + Fake::DoneEvent();

TEST(UpstreamParts, ReadsToolCallsInEveryShape) {
  const struct {
    const char* what;
    std::string bytes;
    std::string story;
  } rows[] = {
      {"as OpenAI", Calls(Call("0", "a", "f", "")) + Calls(Call("0", "", "", "{")) + Calls(Call("0", "", "", "}")),
       "/3 call(a f {}) tool_calls; prompt 0"},
      {"one after another",
       Calls(Call("0", "a", "f", "{")) + Calls(Call("0", "", "", "}")) + Calls(Call("1", "b", "g", "{")) +
           Calls(Call("1", "", "", "}")),
       "/4 call(a f {}) call(b g {}) tool_calls; prompt 0"},
      {"interleaved",
       Calls(Call("0", "a", "f", "")) + Calls(Call("1", "b", "g", "")) + Calls(Call("0", "", "", "{")) +
           Calls(Call("1", "", "", "{}")) + Calls(Call("0", "", "", "}")),
       "/5 call(a f {}) call(b g {}) tool_calls; prompt 0"},
      {"several in one delta", Calls(Call("0", "a", "f", "{}") + "," + Call("1", "b", "f", "{}")),
       "/2 call(a f {}) call(b f {}) tool_calls; prompt 0"},
      {"name and arguments together", Calls(Call("0", "a", "f", "{}")), "/1 call(a f {}) tool_calls; prompt 0"},
      {"no arguments", Calls(Call("0", "a", "f", "")), "/1 call(a f ) tool_calls; prompt 0"},
      {"one index for all, with ids",
       Calls(Call("0", "a", "f", "{")) + Calls(Call("0", "", "", "}")) + Calls(Call("0", "b", "f", "{")) +
           Calls(Call("0", "", "", "}")),
       "/4 call(a f {}) call(b f {}) tool_calls; prompt 0"},
      {"one index for all, in one delta", Calls(Call("0", "a", "f", "{}") + "," + Call("0", "b", "g", "{}")),
       "/2 call(a f {}) call(b g {}) tool_calls; prompt 0"},
      {"one id for all", Calls(Call("0", "a", "f", "{}") + "," + Call("0", "a", "g", "{}")),
       "/2 call(a f {}) call(a g {}) tool_calls; prompt 0"},
      {"no index", Calls(Call("", "a", "f", "{") + "," + Call("", "b", "g", "{}")) + Calls(Call("", "a", "", "}")),
       "/3 call(a f {}) call(b g {}) tool_calls; prompt 0"},
      {"no index and no id later", Calls(Call("", "a", "f", "{")) + Calls(Call("", "", "", "}")),
       "/2 call(a f {}) tool_calls; prompt 0"},
      {"gaps between indexes",
       Calls(Call("7", "a", "f", "{")) + Calls(Call("3", "b", "g", "{}")) + Calls(Call("7", "", "", "}")),
       "/3 call(a f {}) call(b g {}) tool_calls; prompt 0"},
      {"id and name in every fragment",
       Calls(Call("0", "a", "f", "{")) + Calls(Call("0", "a", "f", "}")) + Calls(Call("0", "a", "f", "")),
       "/2 call(a f {}) tool_calls; prompt 0 output 3"},
      {"a new id in every fragment", Calls(Call("0", "a", "f", "{")) + Calls(Call("0", "b", "", "}")),
       "/2 call(a f {}) tool_calls; prompt 0"},
      {"the name after the id",
       Calls(Call("0", "a", "", "")) + Calls(Call("0", "", "", "{")) + Calls(Call("0", "", "f", "}")),
       "/2 call(a f {}) tool_calls; prompt 0"},
      {"arguments as an object", Delta(R"({"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"x":1}}}]})"),
       "/1 call(a f {\"x\":1}) tool_calls; prompt 0"},
      {"the form before tool_calls",
       Delta(R"({"function_call":{"name":"f","arguments":"{"}})") + Delta(R"({"function_call":{"arguments":"}"}})"),
       "/2 call(call_16f01c20c3011d69 f {}) tool_calls; prompt 0"},
      {"a whole message",
       R"(data: {"choices":[{"message":{"content":"Hi","reasoning_content":"hm","tool_calls":[)" +
           Call("", "a", "f", "{}") + "]}}]}\n\n",
       "think(hm) Hi/3 call(a f {}) tool_calls; prompt 0"},
      {"arguments that are cut within a character",
       Calls(Call("0", "a", "f", "{\\\"x\\\":\\\"\xE6\x9D")) + Calls(Call("0", "", "", "\xB1\\\"}")),
       "/2 call(a f {\"x\":\"\u6771\"}) tool_calls; prompt 0"},
      {"arguments that end within a character", Calls(Call("0", "a", "f", "{\xE6\x9D")),
       "/1 call(a f {\uFFFD) tool_calls; prompt 0"},
      {"a call without a name", Calls(Call("0", "a", "", "{}")),
       "/0 -; prompt 0; failed unsupported_output !retry: the upstream sent a tool call without a valid name"},
      {"a name with a control character", Calls(Call("0", "a", "f\\n", "{}")),
       "/0 -; prompt 0; failed unsupported_output !retry: the upstream sent a tool call without a valid name"},
      {"a name that is too long", Calls(Call("0", "a", std::string(257, 'f'), "{}")),
       "/0 -; prompt 0; failed unsupported_output !retry: the upstream sent a tool call without a valid name"},
      {"a name that is not UTF-8", Calls(Call("0", "a", "f\xFF", "{}")), "/1 call(a f\uFFFD {}) tool_calls; prompt 0"},
  };
  for (const auto& row : rows) EXPECT_EQ(Story(row.bytes + kEnd), row.story) << row.what;
}

TEST(UpstreamParts, MakesAnIdForACallWithoutAUsableOne) {
  std::vector<std::string> stories;
  const std::string two = Call("0", "", "f", "{}") + "," + Call("1", "", "f", "{}");
  const std::string story = Story(Calls(two) + kEnd);
  EXPECT_EQ(Story(Calls(two) + kEnd), story);
  // Another one for each call, and in each response.
  const auto id_at = [](const std::string& in, size_t call) {
    size_t at = 0;
    for (size_t i = 0; i <= call; ++i) at = in.find("call(call_", at + 1);
    return in.substr(at + 5, 21);
  };
  EXPECT_NE(id_at(story, 0), id_at(story, 1));
  EXPECT_NE(id_at(Story(Calls(two, "s") + kEnd), 0), id_at(story, 0));
  for (const std::string& bad : {std::string(257, 'i'), std::string("a\\nb"), std::string("a\\u0000")}) {
    EXPECT_EQ(id_at(Story(Calls(Call("0", bad, "f", "{}")) + kEnd), 0), id_at(story, 0)) << bad;
  }
  EXPECT_EQ(Story(Calls(Call("0", std::string(256, 'i'), "f", "{}")) + kEnd),
            "/1 call(" + std::string(256, 'i') + " f {}) tool_calls; prompt 0");
}

TEST(UpstreamParts, OneIndexWithoutIdsSplitsAfterACompleteObject) {
  const std::string story = Story(Calls(Call("0", "", "f", "{")) + Calls(Call("0", "", "f", "}")) +
                                  Calls(Call("0", "", "f", "")) + Calls(Call("0", "", "f", "{}")) + kEnd);
  EXPECT_NE(story.find(" f {}) call("), std::string::npos) << story;
  EXPECT_TRUE(story.ends_with(" f {}) tool_calls; prompt 0")) << story;
}

TEST(UpstreamParts, SeparatesKinds) {
  const std::string stop = Fake::ChatFinish("stop");
  const std::string a = Delta(R"({"reasoning_content":"a"})");
  const std::string b = Delta(R"({"reasoning":"b","content":""})");
  EXPECT_EQ(Story(a + b + Fake::ChatDelta("x") + a + Fake::ChatDelta("y") + stop), "think(ab|a) xy/5 stop; prompt 0");
  EXPECT_EQ(Story(a + Delta(R"({"refusal":"No"})") + Delta(R"({"refusal":"."})") + stop),
            "think(a) refuse(No.) /3 stop; prompt 0");
  EXPECT_EQ(Story(a + Calls(Call("0", "i", "f", "{")) + Fake::ChatDelta("x") + Calls(Call("0", "", "", "}")) + kEnd),
            "think(a) x/4 call(i f {}) tool_calls; prompt 0");
  // A character that the end of a part cuts.
  EXPECT_EQ(Story(Delta("{\"reasoning\":\"\xE6\x9D\"}") + Fake::ChatDelta("x") + stop),
            "think(\uFFFD) x/2 stop; prompt 0");
  EXPECT_EQ(Story(Delta("{\"reasoning\":\"\xE6\x9D\"}") + Delta("{\"reasoning\":\"\xB1\"}") + stop),
            "think(\u6771) /2 stop; prompt 0");
}

TEST(UpstreamParts, StopStringsAreThoseOfTheText) {
  UpstreamOutput::Options options;
  options.stop = {"END"};
  const std::string call = Calls(Call("0", "a", "f", "{\\\"x\\\":\\\"END\\\"}"));
  EXPECT_EQ(
      Story(Delta(R"({"reasoning":"END"})") + Fake::ChatDelta("x EN") + call + Fake::ChatDelta("D y") + kEnd, options),
      "think(END) x END y/4 call(a f {\"x\":\"END\"}) tool_calls; prompt 0");
  EXPECT_EQ(Story(call + Fake::ChatDelta("x END y") + kEnd, options), "x /2 call(a f {\"x\":\"END\"}) stop; prompt 0");
}

TEST(UpstreamParts, LimitsHostileCalls) {
  std::string many;
  for (uint32_t i = 0; i < base::kMaxToolCalls; ++i) many += Calls(Call(std::to_string(i), "a", "f", "{}"));
  EXPECT_TRUE(Story(many + kEnd).ends_with(" tool_calls; prompt 0"));
  EXPECT_TRUE(Story(many + Calls(Call("100000", "b", "f", "{}")) + kEnd)
                  .ends_with("failed too_many_parts !retry: the upstream sent too many tool calls"));
  // Calls without a name are held, and count.
  std::string nameless;
  for (int i = 0; i < 1000; ++i) nameless += Calls(Call(std::to_string(i), "a", "", "{}"));
  EXPECT_TRUE(Story(nameless).ends_with("failed too_many_parts !retry: the upstream sent too many tool calls"));
  UpstreamOutput::Options options;
  options.max_text_bytes = 10'000;
  std::string endless;
  for (int i = 0; i < 200; ++i) endless += Calls(Call("0", "a", i == 0 ? "f" : "", std::string(100, 'x')));
  EXPECT_TRUE(Story(endless, options).ends_with("the upstream's output is longer than 10000 bytes"));
  std::string held;
  for (int i = 0; i < 200; ++i) held += Calls(Call("0", "a", "", std::string(100, 'x')));
  EXPECT_TRUE(Story(held, options).ends_with("the upstream's output is longer than 10000 bytes"));
  std::string thoughts;
  for (int i = 0; i < 200; ++i) thoughts += Delta(R"({"reasoning":")" + std::string(100, 'x') + "\"}");
  EXPECT_TRUE(Story(thoughts, options).ends_with("the upstream's output is longer than 10000 bytes"));
}

TEST(UpstreamParts, OutputOfACallAfterTheEndIsAFailure) {
  EXPECT_EQ(Story(Fake::ChatDelta("x") + Fake::ChatFinish("stop") + Calls(Call("0", "a", "f", "")) + kEnd),
            "x/1 -; prompt 0; failed engine_failed !retry: the upstream sent output of a choice after its end");
}

}  // namespace
}  // namespace runnel::inference
