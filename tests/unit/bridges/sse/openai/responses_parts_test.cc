// /v1/responses with reasoning, refusals and calls.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bridges/openai/responses_format.h"
#include "tests/testing/fake_parts.h"
#include "tests/unit/bridges/sse/openai/responses_bytes.h"

namespace runnel::sse {
namespace {

using testing::CallEvent;
using testing::EndedBy;
using testing::FailedEvent;
using testing::LogOfAllParts;
using testing::PartEvent;
using testing::StateOf;
using Log = std::vector<v1::GenerationEvent>;

std::string Encode(Log log, std::optional<uint64_t> starting_after = std::nullopt) {
  openai::ResponsesEncoder encoder(openai::ResponsesEncoder::Kind::kStored, starting_after);
  bridge::GenerationInfo opened;
  opened.annotation = Annotation();
  EXPECT_TRUE(encoder.Open(kGen, opened).ok());
  std::string out;
  for (v1::GenerationEvent& event : log) encoder.Encode(kGen, event, &out);
  return out;
}

std::vector<std::string> EventsOf(const std::string& stream) {
  std::vector<std::string> events;
  for (size_t begin = 0; begin < stream.size();) {
    const size_t end = stream.find("\n\n", begin) + 2;
    events.push_back(stream.substr(begin, end - begin));
    begin = end;
  }
  return events;
}

std::vector<std::string> TypesOf(const std::string& stream) {
  std::vector<std::string> types;
  for (const std::string& event : EventsOf(stream)) types.push_back(event.substr(7, event.find('\n') - 7));
  return types;
}

std::string Id(const std::string& prefix, int part) {
  return prefix + "_" + kRandom + (part == 0 ? "" : "_" + std::to_string(part));
}
std::string Place(const std::string& id, int index) {
  return R"("item_id":")" + id + R"(","output_index":)" + std::to_string(index);
}
std::string Content(const std::string& id, int index) { return Place(id, index) + R"(,"content_index":0)"; }
std::string AnItem(int index, const std::string& item) {
  return R"("output_index":)" + std::to_string(index) + R"(,"item":)" + item;
}
std::string Reasoning(const std::string& status, const std::string& content) {
  return R"({"id":")" + Id("rs", 0) + R"(","type":"reasoning","status":")" + status + R"(","summary":[],"content":[)" +
         content + "]}";
}
std::string Message(int part, const std::string& status, const std::string& content) {
  return R"({"id":")" + Id("msg", part) + R"(","type":"message","status":")" + status +
         R"(","role":"assistant","content":[)" + content + "]}";
}
std::string Call(int part, const std::string& status, const std::string& id, const std::string& name,
                 const std::string& arguments) {
  return R"({"id":")" + Id("fc", part) + R"(","type":"function_call","status":")" + status + R"(","call_id":")" + id +
         R"(","name":")" + name + R"(","arguments":")" + arguments + R"("})";
}
const std::string kHm = R"({"type":"reasoning_text","text":"Hm."})";
const std::string kArguments = R"({\"city\":\"Oslo\"})";

// The events of LogOfAllParts.
std::vector<std::string> AllParts() {
  const std::string rs = Id("rs", 0);
  const std::string msg = Id("msg", 1);
  const std::string weather = Id("fc", 2);
  const std::string time = Id("fc", 3);
  const std::string output = Reasoning("completed", kHm) + "," + Message(1, "completed", Part("Let me see.")) + "," +
                             Call(2, "completed", "call_a", "get_weather", kArguments) + "," +
                             Call(3, "completed", "call_b", "get_time", "{}");
  const std::vector<std::pair<std::string, std::string>> events = {
      {"response.created", "\"response\":" + Response({})},
      {"response.in_progress", "\"response\":" + Response({})},
      {"response.output_item.added", AnItem(0, Reasoning("in_progress", ""))},
      {"response.content_part.added", Content(rs, 0) + R"(,"part":{"type":"reasoning_text","text":""})"},
      {"response.reasoning_text.delta", Content(rs, 0) + R"(,"delta":"H")"},
      {"response.reasoning_text.delta", Content(rs, 0) + R"(,"delta":"m.")"},
      {"response.reasoning_text.done", Content(rs, 0) + R"(,"text":"Hm.")"},
      {"response.content_part.done", Content(rs, 0) + ",\"part\":" + kHm},
      {"response.output_item.done", AnItem(0, Reasoning("completed", kHm))},
      {"response.output_item.added", AnItem(1, Message(1, "in_progress", ""))},
      {"response.content_part.added", Content(msg, 1) + ",\"part\":" + Part("")},
      {"response.output_text.delta", Content(msg, 1) + R"(,"delta":"Let me ","logprobs":[])"},
      {"response.output_text.delta", Content(msg, 1) + R"(,"delta":"see.","logprobs":[])"},
      {"response.output_text.done", Content(msg, 1) + R"(,"text":"Let me see.","logprobs":[])"},
      {"response.content_part.done", Content(msg, 1) + ",\"part\":" + Part("Let me see.")},
      {"response.output_item.done", AnItem(1, Message(1, "completed", Part("Let me see.")))},
      {"response.output_item.added", AnItem(2, Call(2, "in_progress", "call_a", "get_weather", ""))},
      {"response.function_call_arguments.delta", Place(weather, 2) + R"(,"delta":"")"},
      {"response.function_call_arguments.delta", Place(weather, 2) + R"(,"delta":"{\"city\":")"},
      {"response.output_item.added", AnItem(3, Call(3, "in_progress", "call_b", "get_time", ""))},
      {"response.function_call_arguments.delta", Place(time, 3) + R"(,"delta":"{")"},
      {"response.function_call_arguments.delta", Place(weather, 2) + R"(,"delta":"\"Oslo\"}")"},
      {"response.function_call_arguments.delta", Place(time, 3) + R"(,"delta":"}")"},
      {"response.function_call_arguments.done",
       Place(weather, 2) + R"(,"name":"get_weather","arguments":")" + kArguments + "\""},
      {"response.output_item.done", AnItem(2, Call(2, "completed", "call_a", "get_weather", kArguments))},
      {"response.function_call_arguments.done", Place(time, 3) + R"(,"name":"get_time","arguments":"{}")"},
      {"response.output_item.done", AnItem(3, Call(3, "completed", "call_b", "get_time", "{}"))},
      {"response.completed", "\"response\":" + Response({.status = "completed", .output = output, .usage = Usage(9)})},
  };
  std::vector<std::string> bytes;
  for (const auto& [type, rest] : events) bytes.push_back(Event(type, static_cast<int>(bytes.size()), rest));
  return bytes;
}

std::string Joined(const std::vector<std::string>& events, size_t first = 0) {
  std::string text;
  for (size_t i = first; i < events.size(); ++i) text += events[i];
  return text;
}

// A refusal, a call that is cut, text after a call, a part of an unknown kind, only calls, a single refusal, nothing.
std::vector<Log> OtherLogs() {
  const auto start = testing::StartedEvent;
  const auto text = v1::PART_KIND_TEXT;
  const auto call = v1::PART_KIND_TOOL_CALL;
  return {
      EndedBy(
          {start(1, "fake"), PartEvent(2, 0, v1::PART_KIND_REFUSAL, "No"), PartEvent(3, 0, v1::PART_KIND_REFUSAL, ".")},
          v1::FINISH_REASON_STOP),
      EndedBy({start(1, "fake"), PartEvent(2, 0, text, "a"), CallEvent(3, 1, "c", "f"), PartEvent(4, 1, call, "{\"x")},
              v1::FINISH_REASON_LENGTH),
      EndedBy({start(1, "fake"), CallEvent(2, 0, "c", "f", "{"), PartEvent(3, 1, text, "a"), PartEvent(4, 0, call, "}"),
               PartEvent(5, 2, text, "b"), CallEvent(6, 3, "d", "g")},
              v1::FINISH_REASON_TOOL_CALLS),
      EndedBy({start(1, "fake"), CallEvent(2, 0, "c", "f", "{}"), CallEvent(3, 1, "d", "f", "{}")},
              v1::FINISH_REASON_CANCELLED),
      {start(1, "fake"), PartEvent(2, 0, v1::PART_KIND_REASONING, "H"), FailedEvent(3, "engine_failed")},
      {start(1, "fake"), FailedEvent(2, "engine_failed")},
      EndedBy({start(1, "fake")}, v1::FINISH_REASON_STOP),
      Hello(),
  };
}

TEST(ResponsesParts, AreExactlyWhatClientsParse) {
  const std::vector<std::string> expected = AllParts();
  const std::vector<std::string> events = EventsOf(Encode(LogOfAllParts()));
  ASSERT_EQ(events.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(events[i], expected[i]);
  SseHarness harness;
  EXPECT_EQ(Ask(&harness, "POST", kPath, Body(R"(,"stream":true)"), Annotation(), LogOfAllParts()).body,
            Joined(expected));
}

TEST(ResponsesParts, HaveTheSameNumbersFromEveryStart) {
  std::vector<Log> logs = OtherLogs();
  logs.push_back(LogOfAllParts());
  for (const Log& log : logs) {
    const std::vector<std::string> whole = EventsOf(Encode(log));
    for (size_t after = 0; after < whole.size() + 2; ++after) {
      // The last event is sent in any case.
      EXPECT_EQ(Encode(log, after), Joined(whole, std::min(after + 1, whole.size() - 1))) << after;
    }
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_NE(whole[i].find("\"sequence_number\":" + std::to_string(i) + ","), std::string::npos) << whole[i];
    }
  }
}

TEST(ResponsesParts, ResumeInTheMiddleOfACall) {
  SseHarness harness;
  testing::FakeInferenceService::Handlers handlers;
  handlers.get = [](const std::string&) -> absl::StatusOr<v1::Generation> {
    v1::Generation generation = StateOf(LogOfAllParts(), kGen);
    generation.set_annotation(Annotation());
    return generation;
  };
  harness.service.SetHandlers(handlers);
  const std::string target = kOne + "?stream=true&starting_after=";
  for (const size_t after : {0, 4, 18, 20, 22, 26}) {
    EXPECT_EQ(Ask(&harness, "GET", target + std::to_string(after), "", Annotation(), LogOfAllParts()).body,
              Joined(AllParts(), after + 1))
        << after;
  }
  EXPECT_EQ(Ask(&harness, "GET", target + "27", "", Annotation(), LogOfAllParts()).body, AllParts().back());
  EXPECT_EQ(harness.Ask("GET", target + "28").head.status, 400);
}

// CheckStart of the API relies on it.
TEST(ResponsesParts, TheLastNumberFollowsFromTheState) {
  std::vector<Log> logs = OtherLogs();
  logs.push_back(LogOfAllParts());
  for (const Log& log : logs) {
    for (size_t length = 1; length <= log.size(); ++length) {
      const Log part(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(length));
      v1::Generation state = StateOf(part, kGen);
      size_t events = EventsOf(Encode(part)).size();
      // Events 2 and 3 were always sent with `started`, so they are valid although they now follow with the first
      // delta.
      if (length == 1) events = 4;
      EXPECT_EQ(openai::LastNumber(state), events - 1) << length;
      state.mutable_choices(0)->clear_text();
      for (v1::PartText& each : *state.mutable_choices(0)->mutable_parts()) each.clear_content();
      EXPECT_EQ(openai::LastNumber(state), events - 1) << length;
    }
  }
}

TEST(ResponsesParts, ARefusalIsAMessage) {
  const std::string stream = Encode(OtherLogs()[0]);
  const std::string part = R"({"type":"refusal","refusal":"No."})";
  EXPECT_EQ(EventsOf(stream)[3],
            Event("response.content_part.added", 3, kPlace + R"(,"part":{"type":"refusal","refusal":""})"));
  EXPECT_EQ(EventsOf(stream)[4], Event("response.refusal.delta", 4, kPlace + R"(,"delta":"No")"));
  EXPECT_EQ(EventsOf(stream)[6], Event("response.refusal.done", 6, kPlace + R"(,"refusal":"No.")"));
  EXPECT_EQ(EventsOf(stream)[7], Event("response.content_part.done", 7, kPlace + ",\"part\":" + part));
  EXPECT_NE(EventsOf(stream)[9].find("\"output\":[" + Message(0, "completed", part) + "]"), std::string::npos);
}

TEST(ResponsesParts, ACallThatIsCutIsNeverAnnouncedAsCompleted) {
  const std::string stream = Encode(OtherLogs()[1]);
  EXPECT_EQ(TypesOf(stream),
            (std::vector<std::string>{
                "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
                "response.output_text.delta", "response.output_text.done", "response.content_part.done",
                "response.output_item.done", "response.output_item.added", "response.function_call_arguments.delta",
                "response.function_call_arguments.delta", "response.incomplete"}));
  EXPECT_NE(EventsOf(stream).back().find(Call(1, "incomplete", "c", "f", "{\\\"x")), std::string::npos);
  // Nor if the server says that the response ended normally.
  for (const auto reason : {v1::FINISH_REASON_TOOL_CALLS, v1::FINISH_REASON_STOP}) {
    Log log = OtherLogs()[1];
    log.back().mutable_done()->mutable_choices(0)->set_finish_reason(reason);
    const std::string last = EventsOf(Encode(log)).back();
    EXPECT_EQ(last.find("event: response.incomplete"), 0u);
    EXPECT_NE(last.find(R"("incomplete_details":{"reason":"max_output_tokens"})"), std::string::npos);
    EXPECT_EQ(TypesOf(Encode(log)), TypesOf(stream));
  }
  for (const Log& log : {OtherLogs()[3]}) {
    EXPECT_EQ(Encode(log).find(".done"), std::string::npos);
    EXPECT_EQ(Encode(log).find("\"status\":\"completed\""), std::string::npos);
  }
}

TEST(ResponsesParts, EndTextWhenTheNextItemBegins) {
  const std::vector<std::string> types = TypesOf(Encode(OtherLogs()[2]));
  EXPECT_EQ(types, (std::vector<std::string>{"response.created",
                                             "response.in_progress",
                                             "response.output_item.added",
                                             "response.function_call_arguments.delta",
                                             "response.output_item.added",
                                             "response.content_part.added",
                                             "response.output_text.delta",
                                             "response.function_call_arguments.delta",
                                             "response.output_text.done",
                                             "response.content_part.done",
                                             "response.output_item.done",
                                             "response.output_item.added",
                                             "response.content_part.added",
                                             "response.output_text.delta",
                                             "response.output_text.done",
                                             "response.content_part.done",
                                             "response.output_item.done",
                                             "response.output_item.added",
                                             "response.function_call_arguments.delta",
                                             "response.function_call_arguments.done",
                                             "response.output_item.done",
                                             "response.function_call_arguments.done",
                                             "response.output_item.done",
                                             "response.completed"}));
}

TEST(ResponsesParts, IgnoreKindsThatAreNotKnown) {
  Log log = {testing::StartedEvent(),
             PartEvent(2, 0, v1::PART_KIND_TEXT, "Hel"),
             PartEvent(3, 1, static_cast<v1::PartKind>(99), "?"),
             PartEvent(4, 0, v1::PART_KIND_REASONING, "!"),
             PartEvent(5, 0, v1::PART_KIND_TEXT, "lo"),
             testing::DoneEvent(4, "Hello")};
  EXPECT_EQ(Encode(log), From(0));
}

TEST(ResponsesParts, AreTheSameInOnePieceAndWhenRead) {
  std::vector<Log> logs = OtherLogs();
  logs.push_back(LogOfAllParts());
  for (const Log& log : logs) {
    const std::string last = EventsOf(Encode(log)).back();
    const size_t begin = last.find("\"response\":") + 11;
    const std::string response = last.substr(begin, last.size() - begin - 3);
    SseHarness harness;
    testing::FakeInferenceService::Handlers handlers;
    handlers.get = [&log](const std::string&) -> absl::StatusOr<v1::Generation> {
      v1::Generation generation = StateOf(log, kGen);
      generation.set_annotation(Annotation());
      return generation;
    };
    harness.service.SetHandlers(handlers);
    EXPECT_EQ(harness.Ask("GET", kOne).body, response);
    EXPECT_EQ(Ask(&harness, "POST", kPath, Body(), Annotation(), log).body, response);
  }
}

TEST(ResponsesParts, ShowWhatIsOpenWhileTheyRun) {
  const Log log = LogOfAllParts();
  const auto response_at = [&](size_t length) {
    SseHarness harness;
    testing::FakeInferenceService::Handlers handlers;
    handlers.get = [&](const std::string&) -> absl::StatusOr<v1::Generation> {
      v1::Generation generation = StateOf({log.begin(), log.begin() + static_cast<std::ptrdiff_t>(length)}, kGen);
      generation.set_annotation(Annotation());
      return generation;
    };
    harness.service.SetHandlers(handlers);
    return harness.Ask("GET", kOne).body;
  };
  EXPECT_EQ(response_at(2), Response({.output = Reasoning("in_progress", R"({"type":"reasoning_text","text":"H"})")}));
  EXPECT_EQ(response_at(8),
            Response({.output = Reasoning("completed", kHm) + "," + Message(1, "completed", Part("Let me see.")) + "," +
                                Call(2, "in_progress", "call_a", "get_weather", R"({\"city\":)") + "," +
                                Call(3, "in_progress", "call_b", "get_time", "{")}));
}

TEST(ResponsesParts, LogprobsBelongToTheirText) {
  Log log = LogOfAllParts();
  for (const size_t i : {1, 3, 4}) {
    v1::TokenLogprob* token = log[i].mutable_delta()->add_logprobs();
    token->set_token("t" + std::to_string(i));
    token->set_logprob(-0.5f);
  }
  const std::string expected =
      R"("text":"Let me see.","annotations":[],"logprobs":[{"token":"t3","logprob":-0.5,"bytes":[116,51],"top_logprobs":[]},{"token":"t4","logprob":-0.5,"bytes":[116,52],"top_logprobs":[]}]})";
  EXPECT_NE(EventsOf(Encode(log)).back().find(expected), std::string::npos);
  SseHarness harness;
  const std::string whole = Ask(&harness, "POST", kPath, Body(kWithLogprobs), Annotation(kWithLogprobs), log).body;
  EXPECT_NE(whole.find(expected), std::string::npos) << whole;
  EXPECT_EQ(whole.find("\"t1\""), std::string::npos);
}

}  // namespace
}  // namespace runnel::sse
