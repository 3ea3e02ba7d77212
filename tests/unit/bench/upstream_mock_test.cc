// The upstream mock and the client's check of its tokens: what the one makes, the other must accept, and nothing else.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/load/codec.h"
#include "tests/bench/load/stream_check.h"
#include "tests/bench/peers/upstream_mock/mock_request.h"
#include "tests/bench/peers/upstream_mock/mock_stream.h"

namespace runnel::bench {
namespace {

using nlohmann::json;

constexpr int64_t kReceivedUs = 1'000'000;

MockRequest ChatRequest(uint32_t tokens) {
  MockRequest request;
  request.chat = request.include_usage = true;
  request.model = "mock";
  request.plan = {.seed = 7, .tokens = tokens, .pace = 100, .phase = 0.5};
  return request;
}

// The whole response, each token written when it is due.
std::string Events(const MockRequest& request) {
  MockStream stream(request, 1, kReceivedUs);
  std::string events;
  stream.AppendStart(&events);
  while (!stream.ended()) stream.AppendNext(stream.due_us(), &events);
  return events;
}

std::vector<std::string> DataLines(const std::string& events) {
  std::vector<std::string> lines;
  for (size_t at = 0, end; (end = events.find("\n\n", at)) != std::string::npos; at = end + 2) {
    EXPECT_EQ(events.substr(at, 6), "data: ");
    lines.push_back(events.substr(at + 6, end - at - 6));
  }
  return lines;
}

// Reads a response with the load client, like a connection does.
class Reader final : public Codec::Sink {
 public:
  explicit Reader(const MockPlan& plan) : check_(&totals, plan) {
    options_.transport = Transport::kChat;
    options_.mock = true;
    codec_ = MakeCodec(&options_, 0);
    check_.OnRequested(kReceivedUs - 300);
  }
  // Returns what is wrong with the bytes.
  std::string Read(const std::string& events, int64_t now_us) {
    now_us_ = now_us;
    std::string in = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + events;
    std::string out;
    return codec_->OnBytes(&in, &out, this);
  }
  void OnOpened() override {}
  void OnEvent(Event* event) override { check_.OnEvent(event, now_us_); }
  uint64_t last() const override { return check_.last(); }
  bool ended() const override { return check_.ended(); }

  Totals totals;

 private:
  LoadOptions options_;
  StreamCheck check_;
  std::unique_ptr<Codec> codec_;
  int64_t now_us_ = 0;
};

Totals ReadAll(const MockRequest& request, const std::string& events) {
  Reader reader(request.plan);
  EXPECT_EQ(reader.Read(events, kReceivedUs), "");
  return std::move(reader.totals);
}

// `events` without the token `index`, and with `instead` in its place.
std::string Replace(const std::string& events, int index, const std::string& instead) {
  std::string out;
  for (const std::string& line : DataLines(events)) {
    const bool is_it = line.find("\"content\":\" " + std::to_string(index) + ":") != std::string::npos;
    out += is_it ? instead : "data: " + line + "\n\n";
  }
  return out;
}

std::string Line(const std::string& events, int index) {
  for (const std::string& line : DataLines(events)) {
    if (line.find("\"content\":\" " + std::to_string(index) + ":") != std::string::npos)
      return "data: " + line + "\n\n";
  }
  ADD_FAILURE() << "no token " << index;
  return "";
}

TEST(MockPlan, TravelsInThePrompt) {
  MockPlan plan;
  ASSERT_TRUE(ReadPlan(PromptOf({.seed = 9, .tokens = 40, .pace = 7.5, .phase = 0.125}), &plan));
  EXPECT_EQ(plan.seed, 9u);
  EXPECT_EQ(plan.tokens, 40u);
  EXPECT_EQ(plan.pace, 7.5);
  EXPECT_EQ(plan.phase, 0.125);
  for (const char* prompt :
       {"", "hello", "mock-plan ", "mock-plan seed=1 tokens=1 pace=1", "mock-plan seed=1 tokens=1 pace=0 phase=0",
        "mock-plan seed=1 tokens=1000001 pace=1 phase=0", "mock-plan seed=1 tokens=1 pace=1 phase=1",
        "mock-plan seed=1 tokens=1 pace=nan phase=0", "mock-plan seed=-1 tokens=1 pace=1 phase=0",
        "mock-plan seed=1 tokens=1 pace=1 phase=0 "}) {
    EXPECT_FALSE(ReadPlan(prompt, &plan)) << prompt;
  }
}

TEST(NumberedToken, ReadsWhatItWrites) {
  for (uint32_t index = 0; index < 200; ++index) {
    std::string quoted = "\"";
    AppendTokenJson(3, {index, 11, 22}, &quoted);
    const std::string text = json::parse(quoted + "\"").get<std::string>() + " 999:1|next";
    std::string_view rest = text;
    NumberedToken token;
    std::string_view word;
    ASSERT_TRUE(TakeToken(&rest, &token, &word)) << text;
    EXPECT_EQ(token.index, index);
    EXPECT_EQ(token.written_us, 22);
    EXPECT_EQ(token.received_us, index == 0 ? 11 : 0);
    EXPECT_EQ(word, MockWord(3, index));
    EXPECT_EQ(rest, " 999:1|next");
  }
}

TEST(NumberedToken, RejectsWhatIsNotOne) {
  for (const char* text :
       {"", " ", "1:2|a", " 0:1:2|a", "0:1|a", " 1:2", " 1:|a", " x:2|a", " 1|a", " 99999999999:2|a"}) {
    std::string_view rest = text;
    NumberedToken token;
    std::string_view word;
    EXPECT_FALSE(TakeToken(&rest, &token, &word)) << text;
  }
}

TEST(TakeRequest, TakesOneRequestHoweverItIsCut) {
  const std::string bytes = "POST /v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
  for (size_t cut = 0; cut < bytes.size(); ++cut) {
    MockHead head;
    std::string body;
    std::string in = bytes.substr(0, cut);
    ASSERT_EQ(TakeRequest(&in, &head, &body), MockParse::kPartial) << cut;
    in += bytes.substr(cut) + "GET / HTTP/1.0\r\n\r\n";
    ASSERT_EQ(TakeRequest(&in, &head, &body), MockParse::kComplete) << cut;
    EXPECT_EQ(head.method + head.path, "POST/v1/x");
    EXPECT_EQ(body, "body");
    EXPECT_FALSE(head.close);
    ASSERT_EQ(TakeRequest(&in, &head, &body), MockParse::kComplete);
    EXPECT_TRUE(head.http10 && head.close && body.empty() && in.empty());
  }
}

TEST(TakeRequest, RejectsWhatItCannotRead) {
  for (const std::string& bytes : std::vector<std::string>{
           "\r\n\r\n", "GET\r\n\r\n", "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
           "POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
           "POST / HTTP/1.1\r\ncontent-length: 1048577\r\n\r\n", std::string(kMaxHeadBytes + 1, 'a')}) {
    MockHead head;
    std::string body;
    std::string in = bytes;
    EXPECT_EQ(TakeRequest(&in, &head, &body), MockParse::kInvalid) << bytes.substr(0, 80);
  }
}

TEST(ReadMockRequest, ReadsBothRoutesAndBothFormsOfContent) {
  MockRequest request;
  const std::string prompt = PromptOf({.seed = 5, .tokens = 3});
  json body = {{"stream", true}, {"model", "m"}, {"prompt", prompt}};
  EXPECT_EQ(ReadMockRequest(body.dump(), false, &request), "");
  EXPECT_EQ(request.plan.seed, 5u);
  EXPECT_FALSE(request.include_usage);
  body["messages"] = {{{"role", "user"}, {"content", prompt}}};
  body["stream_options"] = {{"include_usage", true}};
  EXPECT_EQ(ReadMockRequest(body.dump(), true, &request), "");
  EXPECT_TRUE(request.include_usage);
  body["messages"][0]["content"] = {{{"type", "text"}, {"text", prompt}}};
  EXPECT_EQ(ReadMockRequest(body.dump(), true, &request), "");
  EXPECT_EQ(request.model, "m");
}

TEST(ReadMockRequest, RejectsWhatHasNoPlan) {
  for (const char* body :
       {"", "[]", "7", "{}", R"({"stream":true})", R"({"stream":true,"messages":[]})",
        R"({"stream":true,"messages":[{}]})", R"({"stream":true,"messages":[{"content":[]}]})",
        R"({"stream":true,"messages":[{"content":7}]})", R"({"stream":true,"messages":[{"content":"hello"}]})",
        R"({"stream":false,"messages":[{"content":"mock-plan seed=1 tokens=1 pace=1 phase=0"}]})"}) {
    MockRequest request;
    EXPECT_NE(ReadMockRequest(body, true, &request), "") << body;
  }
}

TEST(MockStream, WritesChunksUsageAndDone) {
  const std::vector<std::string> lines = DataLines(Events(ChatRequest(2)));
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(
      lines[0],
      "{\"id\":\"chatcmpl-0000000000000001\",\"object\":\"chat.completion.chunk\",\"created\":1767225600,\"model\":"
      "\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
      "\"finish_reason\":null}],\"usage\":null}");
  EXPECT_EQ(json::parse(lines[3])["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json::parse(lines[4])["usage"]["completion_tokens"], 2);
  EXPECT_TRUE(json::parse(lines[4])["choices"].empty());
  EXPECT_EQ(lines[5], "[DONE]");
  MockRequest legacy = ChatRequest(1);
  legacy.chat = legacy.include_usage = false;
  const std::vector<std::string> plain = DataLines(Events(legacy));
  ASSERT_EQ(plain.size(), 3u);
  EXPECT_EQ(json::parse(plain[0])["object"], "text_completion");
  EXPECT_EQ(json::parse(plain[1])["choices"][0]["finish_reason"], "stop");
}

TEST(MockStream, WritesReasoningTextAndCalls) {
  MockRequest request = ChatRequest(40);
  request.plan.parts = true;
  std::string reasoning;
  std::string text;
  std::vector<std::string> arguments(2);
  std::string reason;
  for (const std::string& line : DataLines(Events(request))) {
    if (line == "[DONE]" || json::parse(line)["choices"].empty()) continue;
    const json choice = json::parse(line)["choices"][0];
    const json& delta = choice["delta"];
    reasoning += delta.value("reasoning_content", "");
    text += delta.value("content", "");
    for (const json& call : delta.value("tool_calls", json::array())) {
      const size_t index = call["index"];
      if (arguments[index].empty()) {
        EXPECT_EQ(call["id"], absl::StrCat("call_", request.plan.seed, "_", index));
        EXPECT_EQ(call["type"], "function");
        EXPECT_EQ(call["function"]["name"], absl::StrCat("tool", index));
      } else {
        EXPECT_FALSE(call.contains("id") || call["function"].contains("name"));
      }
      arguments[index] += call["function"]["arguments"];
    }
    if (!choice["finish_reason"].is_null()) reason = choice["finish_reason"];
  }
  EXPECT_EQ(reason, "tool_calls");
  std::string all = reasoning + text;
  for (const std::string& each : arguments) all += json::parse(each)["t"];
  std::string_view rest = all;
  for (uint32_t i = 0; i < request.plan.tokens; ++i) {
    NumberedToken token;
    std::string_view word;
    ASSERT_TRUE(TakeToken(&rest, &token, &word)) << rest;
    EXPECT_EQ(token.index, i);
    EXPECT_EQ(word, MockWord(request.plan.seed, i));
  }
  EXPECT_EQ(rest, "");
}

TEST(MockStream, KeepsItsPhaseWhateverTheTimeOfTheRequest) {
  for (const int64_t received : {1'000'000, 1'003'000, 1'004'999, 1'005'000, 1'005'001, 1'009'999}) {
    MockStream stream(ChatRequest(3), 1, received);
    std::string ignored;
    EXPECT_GE(stream.due_us(), received);
    EXPECT_LE(stream.due_us(), received + 10'000);
    EXPECT_EQ(stream.due_us() % 10'000, 5'000);
    const int64_t first = stream.due_us();
    stream.AppendNext(first, &ignored);
    EXPECT_EQ(stream.due_us(), first + 10'000);
  }
}

TEST(TokenCheck, VerifiesAWholeChatStream) {
  for (const bool parts : {false, true}) {
    MockRequest request = ChatRequest(50);
    request.plan.parts = parts;
    const Totals totals = ReadAll(request, Events(request));
    EXPECT_EQ(totals.verified, 1u);
    EXPECT_EQ(totals.tokens, 50u);
    EXPECT_EQ(totals.events, 52u);
    EXPECT_EQ(totals.lost + totals.duplicated + totals.reordered, 0u);
    EXPECT_EQ(totals.first_fault, "");
  }
}

TEST(TokenCheck, ReadsMergedTokens) {
  const MockRequest request = ChatRequest(3);
  std::string events = Events(request);
  const auto text = [&](int index) {
    return json::parse(Line(events, index).substr(6))["choices"][0]["delta"]["content"].get<std::string>();
  };
  json merged = json::parse(Line(events, 1).substr(6));
  merged["choices"][0]["delta"]["content"] = text(1) + text(2);
  const Totals totals = ReadAll(request, Replace(Replace(events, 2, ""), 1, "data: " + merged.dump() + "\n\n"));
  EXPECT_EQ(totals.verified, 1u);
  EXPECT_EQ(totals.tokens, 3u);
}

TEST(TokenCheck, SeesLossRepetitionAndDisorder) {
  const MockRequest request = ChatRequest(6);
  const std::string events = Events(request);
  Totals totals = ReadAll(request, Replace(events, 3, ""));
  EXPECT_EQ(totals.lost, 1u);
  EXPECT_EQ(totals.verified, 0u);
  totals = ReadAll(request, Replace(events, 3, Line(events, 3) + Line(events, 3)));
  EXPECT_EQ(totals.duplicated, 1u);
  EXPECT_NE(totals.first_fault, "");
  totals = ReadAll(request, Replace(Replace(events, 3, ""), 4, Line(events, 4) + Line(events, 3)));
  EXPECT_EQ(totals.reordered, 1u);
  EXPECT_EQ(totals.lost, 0u);
  EXPECT_EQ(totals.verified, 0u);
}

TEST(TokenCheck, SeesOtherTextAndAnEarlyEnd) {
  const MockRequest request = ChatRequest(6);
  const std::string events = Events(request);
  MockRequest of_another_seed = request;
  of_another_seed.plan.seed = 8;
  EXPECT_EQ(ReadAll(request, Events(of_another_seed)).verified, 0u);
  EXPECT_EQ(ReadAll(request, Events(ChatRequest(5))).verified, 0u);
  json other = json::parse(Line(events, 3).substr(6));
  other["choices"][0]["delta"]["content"] = "hello";
  EXPECT_EQ(ReadAll(request, Replace(events, 3, "data: " + other.dump() + "\n\n")).verified, 0u);
  MockRequest without_usage = request;
  without_usage.include_usage = false;
  EXPECT_EQ(ReadAll(request, Events(without_usage)).verified, 0u);
  Reader unfinished(request.plan);
  EXPECT_NE(unfinished.Read("data: [DONE]\n\n", kReceivedUs), "");
  Reader failed(request.plan);
  EXPECT_NE(failed.Read("data: {\"error\":{\"message\":\"no\"}}\n\n", kReceivedUs), "");
}

TEST(TokenCheck, TakesTheDelaysFromTheTimesInTheTokens) {
  const MockRequest request = ChatRequest(1);
  MockStream stream(request, 1, kReceivedUs);
  std::string events;
  stream.AppendNext(kReceivedUs + 5000, &events);
  Reader reader(request.plan);
  reader.totals.in_window = true;
  // Requested 300 us before the mock received it, read 200 us after the write.
  EXPECT_EQ(reader.Read(events, kReceivedUs + 5200), "");
  EXPECT_EQ(reader.totals.delay.count(), 1u);
  EXPECT_NEAR(static_cast<double>(reader.totals.delay.max()), 200, 4);
  EXPECT_NEAR(static_cast<double>(reader.totals.added_first_token.max()), 500, 8);
}

TEST(MockPlanOf, SpreadsThePhasesOfTheStreams) {
  LoadOptions options;
  options.streams = 8;
  EXPECT_FALSE(MockPlanOf(options, 1).has_value());
  options.mock = true;
  EXPECT_EQ(MockPlanOf(options, 0)->phase, 0);
  EXPECT_EQ(MockPlanOf(options, 2)->phase, 0.25);
  options.stepped = true;
  EXPECT_EQ(MockPlanOf(options, 2)->phase, 0);
  EXPECT_EQ(MockPlanOf(options, 2)->seed, 3u);
}

TEST(RequestBody, CarriesThePlanOverEveryRoute) {
  LoadOptions options;
  options.mock = true;
  options.streams = 8;
  const std::string native = RequestBody(options, 4);
  EXPECT_EQ(json::parse(native)["messages"][0]["content"], PromptOf(*MockPlanOf(options, 4)));
  options.transport = Transport::kChat;
  MockRequest request;
  EXPECT_EQ(ReadMockRequest(RequestBody(options, 4), true, &request), "");
  EXPECT_TRUE(request.include_usage);
  EXPECT_EQ(request.plan.seed, 5u);
}

}  // namespace
}  // namespace runnel::bench
