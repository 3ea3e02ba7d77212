// Reasoning, tool calls and refusals of chat completions as bytes on the wire.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/fake_parts.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using testing::CallEvent;
using testing::EndedBy;
using testing::PartEvent;

const std::string kGen = FakeId('a');
const std::string kHead = R"({"id":"chatcmpl-)" + std::string(26, 'a') + R"(","object":"chat.completion)";
const std::string kDone = "data: [DONE]\n\n";

std::string Chunk(const std::string& delta, const std::string& finish = "null") {
  return "data: " + kHead + R"(.chunk","created":1795410000,"model":"fake","choices":[{"index":0,"delta":)" + delta +
         R"(,"logprobs":null,"finish_reason":)" + finish + "}]}\n\n";
}
const std::string kRole = Chunk(R"({"role":"assistant","content":""})");

const std::string kWhole = R"({"model":"m","messages":[{"role":"user","content":"hi"}]})";
const std::string kStreamed = R"({"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true})";

std::string Ask(const std::string& path, const std::string& request, std::vector<v1::GenerationEvent> events) {
  SseHarness harness;
  const auto client = harness.Connect();
  EXPECT_TRUE(client->Request("POST", path, "", request).ok());
  const auto command = harness.service.NextCommand();
  if (!command.has_value()) return "";
  harness.service.Attach(*command, kGen);
  harness.service.SendEvents(*command, std::move(events));
  auto response = client->ReadResponse();
  return response.ok() ? response->body : "";
}
std::string Stream(std::vector<v1::GenerationEvent> events) {
  return Ask("/v1/chat/completions", kStreamed, std::move(events));
}
// The choice of a response in one piece.
std::string Choice(std::vector<v1::GenerationEvent> events) {
  const std::string body = Ask("/v1/chat/completions", kWhole, std::move(events));
  const size_t begin = body.find("\"choices\":[") + 11;
  return body.substr(begin, body.find("],\"usage\"") - begin);
}

TEST(ChatParts, StreamIsExactlyWhatClientsParse) {
  EXPECT_EQ(
      Stream(testing::LogOfAllParts()),
      kRole + Chunk(R"({"reasoning_content":"H","reasoning":"H"})") +
          Chunk(R"({"reasoning_content":"m.","reasoning":"m."})") + Chunk(R"({"content":"Let me "})") +
          Chunk(R"({"content":"see."})") +
          Chunk(
              R"({"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"get_weather","arguments":""}}]})") +
          Chunk(R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]})") +
          Chunk(
              R"({"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"get_time","arguments":""}}]})") +
          Chunk(R"({"tool_calls":[{"index":1,"function":{"arguments":"{"}}]})") +
          Chunk(R"({"tool_calls":[{"index":0,"function":{"arguments":"\"Oslo\"}"}}]})") +
          Chunk(R"({"tool_calls":[{"index":1,"function":{"arguments":"}"}}]})") + Chunk("{}", "\"tool_calls\"") +
          kDone);
}

TEST(ChatParts, ResponseInOnePiece) {
  EXPECT_EQ(
      Choice(testing::LogOfAllParts()),
      R"({"index":0,"message":{"role":"assistant","content":"Let me see.","reasoning_content":"Hm.","reasoning":"Hm.",)"
      R"("refusal":null,"tool_calls":[{"id":"call_a","type":"function","function":{"name":"get_weather","arguments":)"
      R"("{\"city\":\"Oslo\"}"}},{"id":"call_b","type":"function","function":{"name":"get_time","arguments":"{}"}}]},)"
      R"("logprobs":null,"finish_reason":"tool_calls"})");
}

TEST(ChatParts, ARefusalHasItsOwnField) {
  const std::vector<v1::GenerationEvent> events = EndedBy(
      {StartedEvent(), PartEvent(2, 0, v1::PART_KIND_REFUSAL, "No"), PartEvent(3, 0, v1::PART_KIND_REFUSAL, ".")},
      v1::FINISH_REASON_STOP);
  EXPECT_EQ(Stream(events),
            kRole + Chunk(R"({"refusal":"No"})") + Chunk(R"({"refusal":"."})") + Chunk("{}", "\"stop\"") + kDone);
  EXPECT_EQ(Choice(events), R"({"index":0,"message":{"role":"assistant","content":null,"refusal":"No."},)"
                            R"("logprobs":null,"finish_reason":"stop"})");
}

TEST(ChatParts, ACallThatWasCutIsNeverReportedAsFinished) {
  std::vector<v1::GenerationEvent> events =
      EndedBy({StartedEvent(), CallEvent(2, 0, "a", "f", "{}"), CallEvent(3, 1, "b", "g", "{\"x\":")},
              v1::FINISH_REASON_LENGTH);
  v1::ChoiceEnd* end = events.back().mutable_done()->mutable_choices(0);
  end->mutable_parts(0)->set_complete(true);
  const std::string message =
      R"({"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"a",)"
      R"("type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":"length"})";
  EXPECT_EQ(Choice(events), message);
  EXPECT_NE(Stream(events).find(Chunk("{}", "\"length\"")), std::string::npos);
  // A service that is wrong about the reason.
  end->set_finish_reason(v1::FINISH_REASON_TOOL_CALLS);
  EXPECT_EQ(Choice(events), message);
  EXPECT_EQ(Stream(events).find("\"tool_calls\"}"), std::string::npos);
}

// What a client makes of the chunks of one choice: it joins the fragments, and takes the call of a fragment from its
// index. Fails the test for a fragment that clients cannot use.
struct ClientMessage {
  std::map<std::string, std::string> texts;  // by the name of the field
  struct Call {
    std::string id, name, arguments;
    bool operator==(const Call&) const = default;
  };
  std::vector<Call> calls;
  std::string finish_reason;
  bool operator==(const ClientMessage&) const = default;
};

void ApplyFragment(const nlohmann::json& fragment, ClientMessage* message) {
  const auto index = fragment.at("index").get<size_t>();
  ASSERT_LE(index, message->calls.size());
  const bool first = index == message->calls.size();
  ASSERT_EQ(fragment.contains("id") && fragment.contains("type") && fragment["function"].contains("name"), first);
  ASSERT_EQ(fragment.size() + fragment["function"].size(), first ? 6u : 3u) << fragment;
  if (first) {
    ASSERT_EQ(fragment["type"], "function");
    ASSERT_EQ(fragment["function"]["arguments"], "");
    message->calls.push_back({fragment["id"], fragment["function"]["name"], ""});
  }
  message->calls[index].arguments += fragment["function"]["arguments"].get<std::string>();
}

ClientMessage Accumulate(const std::string& body, size_t choice = 0) {
  ClientMessage message;
  for (size_t at = 0; (at = body.find("data: {", at)) != std::string::npos; ++at) {
    const auto chunk = nlohmann::json::parse(body.substr(at + 6, body.find('\n', at) - at - 6));
    EXPECT_EQ(chunk["choices"].size(), 1u);
    const auto& each = chunk["choices"][0];
    if (each["index"] != choice) continue;
    for (const auto& [key, value] : each["delta"].items()) {
      if (value.is_string()) message.texts[key] += value.get<std::string>();
    }
    for (const auto& fragment : each["delta"].value("tool_calls", nlohmann::json::array())) {
      ApplyFragment(fragment, &message);
    }
    if (each["finish_reason"].is_string()) message.finish_reason = each["finish_reason"];
  }
  return message;
}

const ClientMessage kAllParts = {
    {{"role", "assistant"}, {"content", "Let me see."}, {"reasoning", "Hm."}, {"reasoning_content", "Hm."}},
    {{"call_a", "get_weather", R"({"city":"Oslo"})"}, {"call_b", "get_time", "{}"}},
    "tool_calls"};

TEST(ChatParts, AMessageIsTheSameWhateverIsMerged) {
  const auto merges = testing::AllMerges(testing::LogOfAllParts());
  ASSERT_EQ(merges.size(), 8u);
  for (const auto& log : merges) EXPECT_EQ(Accumulate(Stream(log)), kAllParts) << log.size();
}

TEST(ChatParts, ALinkThatBreaksAfterAnyEventChangesNoByte) {
  SseHarness harness;
  const std::vector<v1::GenerationEvent> log = testing::LogOfAllParts();
  const std::string whole = Stream(log);
  size_t events = 0;
  for (size_t cut = 1; cut < log.size(); ++cut) {
    const auto client = harness.Connect();
    ASSERT_TRUE(client->Request("POST", "/v1/chat/completions", "", kStreamed).ok());
    const auto command = harness.service.NextCommand();
    ASSERT_TRUE(command && command->request.has_generate());
    harness.service.Attach(*command, kGen);
    harness.service.SendEvents(*command, {log.begin(), log.begin() + static_cast<std::ptrdiff_t>(cut)});
    // A Link that ends may lose what is on its way.
    ASSERT_TRUE(WaitUntil([&] { return harness.metrics.link_events.Value() == static_cast<double>(events + cut); }));
    events += log.size();
    harness.service.EndLink(command->link, absl::UnavailableError("gone"));
    const auto again = harness.service.NextCommand();
    ASSERT_TRUE(again && again->request.has_attach()) << cut;
    // Events that were on their way when the Link ended may be lost with it.
    const auto after = static_cast<std::ptrdiff_t>(again->request.attach().after_seq());
    EXPECT_LE(after, static_cast<std::ptrdiff_t>(cut));
    harness.service.Attach(*again, kGen, v1::GENERATION_STATUS_DONE, log.size(), true);
    harness.service.SendEvents(*again, {log.begin() + after, log.end()});
    const auto response = client->ReadResponse();
    ASSERT_TRUE(response.ok()) << cut;
    EXPECT_EQ(response->body, whole) << cut;
  }
}

TEST(ChatParts, EachChoiceNumbersItsCallsFromZero) {
  v1::GenerationEvent second = CallEvent(3, 0, "b", "g", "{}");
  second.mutable_delta()->set_choice(1);
  const std::vector<v1::GenerationEvent> log =
      EndedBy({StartedEvent(), CallEvent(2, 0, "a", "f", "{}"), second, CallEvent(4, 1, "c", "h", "[]")},
              v1::FINISH_REASON_STOP);
  const std::string body = Ask("/v1/chat/completions",
                               R"({"model":"m","n":2,"messages":[{"role":"user","content":"hi"}],"stream":true})", log);
  const std::vector<ClientMessage::Call> first_calls = {{"a", "f", "{}"}, {"c", "h", "[]"}};
  EXPECT_EQ(Accumulate(body, 0).calls, first_calls);
  const std::vector<ClientMessage::Call> second_calls = {{"b", "g", "{}"}};
  EXPECT_EQ(Accumulate(body, 1).calls, second_calls);
}

TEST(ChatParts, UsageCountsReasoning) {
  std::vector<v1::GenerationEvent> log = testing::LogOfAllParts();
  v1::Usage* usage = log.back().mutable_done()->mutable_usage();
  usage->set_completion_tokens(12);
  usage->set_reasoning_tokens(5);
  const std::string expected =
      R"("completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":0},)"
      R"("completion_tokens_details":{"reasoning_tokens":5}}})";
  EXPECT_TRUE(Ask("/v1/chat/completions", kWhole, log).ends_with(expected));
  const std::string streamed = Ask("/v1/chat/completions",
                                   R"({"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,)"
                                   R"("stream_options":{"include_usage":true}})",
                                   log);
  EXPECT_TRUE(streamed.ends_with(expected + "\n\n" + kDone)) << streamed;
}

TEST(ChatParts, LogprobsOfARefusalHaveTheirOwnList) {
  v1::GenerationEvent text = PartEvent(2, 0, v1::PART_KIND_TEXT, "a");
  text.mutable_delta()->add_logprobs()->set_token("a");
  v1::GenerationEvent refusal = PartEvent(3, 1, v1::PART_KIND_REFUSAL, "b");
  refusal.mutable_delta()->add_logprobs()->set_token("b");
  const std::vector<v1::GenerationEvent> log = EndedBy({StartedEvent(), text, refusal}, v1::FINISH_REASON_STOP);
  const std::string a = R"([{"token":"a","logprob":0,"bytes":[97],"top_logprobs":[]}])";
  const std::string b = R"([{"token":"b","logprob":0,"bytes":[98],"top_logprobs":[]}])";
  const std::string body = Stream(log);
  EXPECT_NE(body.find(R"("delta":{"content":"a"},"logprobs":{"content":)" + a + R"(,"refusal":null})"), body.npos);
  EXPECT_NE(body.find(R"("delta":{"refusal":"b"},"logprobs":{"content":null,"refusal":)" + b + "}"), body.npos);
  const std::string choice = Choice(log);
  EXPECT_NE(choice.find(R"("logprobs":{"content":)" + a + R"(,"refusal":)" + b + "}"), choice.npos) << choice;
}

TEST(ChatParts, AMergedDeltaOpensItsCall) {
  v1::GenerationEvent merged = CallEvent(9, 0, "a", "f", "{\"x\":1}");
  merged.set_first_seq(2);
  EXPECT_EQ(
      Stream(EndedBy({StartedEvent(), merged}, v1::FINISH_REASON_TOOL_CALLS)),
      kRole +
          Chunk(R"({"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]})") +
          Chunk(R"({"tool_calls":[{"index":0,"function":{"arguments":"{\"x\":1}"}}]})") +
          Chunk("{}", "\"tool_calls\"") + kDone);
}

TEST(ChatParts, ACallThatWasCutBeforeItsArgumentsIsNotSent) {
  for (const v1::FinishReason reason : {v1::FINISH_REASON_LENGTH, v1::FINISH_REASON_TOOL_CALLS}) {
    std::vector<v1::GenerationEvent> log = EndedBy({StartedEvent(), CallEvent(2, 0, "a", "f", "")}, reason);
    v1::PartEnd* call = log.back().mutable_done()->mutable_choices(0)->mutable_parts(0);
    call->set_complete(false);
    EXPECT_EQ(Stream(log), kRole + Chunk("{}", "\"length\"") + kDone);
    call->set_complete(true);
    const std::string end = reason == v1::FINISH_REASON_LENGTH ? "\"length\"" : "\"tool_calls\"";
    EXPECT_EQ(
        Stream(log),
        kRole +
            Chunk(R"({"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]})") +
            Chunk("{}", end) + kDone);
  }
}

TEST(ChatParts, CallsWithoutArgumentsKeepTheirOrder) {
  std::vector<v1::GenerationEvent> log =
      EndedBy({StartedEvent(), CallEvent(2, 0, "a", "f", ""), CallEvent(3, 1, "b", "g", "{}"),
               CallEvent(4, 2, "c", "h", ""), CallEvent(5, 3, "d", "i", "")},
              v1::FINISH_REASON_LENGTH);
  v1::ChoiceEnd* end = log.back().mutable_done()->mutable_choices(0);
  for (v1::PartEnd& part : *end->mutable_parts()) part.set_complete(part.index() != 2);
  const std::vector<ClientMessage::Call> calls = {{"a", "f", ""}, {"b", "g", "{}"}, {"d", "i", ""}};
  EXPECT_EQ(Accumulate(Stream(log)).calls, calls);
}

// A text completion has no place for a call or a refusal, and must not look complete without it.
TEST(ChatParts, TextCompletionsFailForOutputThatTheyCannotShow) {
  const std::string request = R"({"model":"m","prompt":"hi")";
  const std::vector<v1::GenerationEvent> refused =
      EndedBy({StartedEvent(), PartEvent(2, 0, v1::PART_KIND_REFUSAL, "No.")}, v1::FINISH_REASON_STOP);
  for (const auto& log : {testing::LogOfAllParts(), refused}) {
    const std::string streamed = Ask("/v1/completions", request + R"(,"stream":true})", log);
    EXPECT_NE(streamed.find(R"("code":"unsupported_output")"), std::string::npos) << streamed;
    EXPECT_EQ(streamed.find(R"("finish_reason":"stop")"), std::string::npos) << streamed;
    const std::string whole = Ask("/v1/completions", request + "}", log);
    EXPECT_NE(whole.find(R"("code":"unsupported_output")"), std::string::npos) << whole;
    EXPECT_EQ(whole.find("choices"), std::string::npos) << whole;
  }
}

TEST(ChatParts, TextCompletionsLeaveReasoningOut) {
  const std::vector<v1::GenerationEvent> log = EndedBy(
      {StartedEvent(), PartEvent(2, 0, v1::PART_KIND_REASONING, "Hm"), PartEvent(3, 1, v1::PART_KIND_TEXT, "Yes.")},
      v1::FINISH_REASON_STOP);
  const std::string body = Ask("/v1/completions", R"({"model":"m","prompt":"hi","stream":true})", log);
  EXPECT_EQ(body.find("Hm"), std::string::npos);
  EXPECT_NE(body.find(R"("text":"Yes.")"), std::string::npos) << body;
  EXPECT_NE(body.find(R"("finish_reason":"stop")"), std::string::npos);
}

TEST(ChatParts, UnknownKindsAreLeftOut) {
  EXPECT_EQ(
      Stream(EndedBy({StartedEvent(), PartEvent(2, 0, static_cast<v1::PartKind>(99), "?")}, v1::FINISH_REASON_STOP)),
      kRole + Chunk("{}", "\"stop\"") + kDone);
}

}  // namespace
}  // namespace runnel::sse
