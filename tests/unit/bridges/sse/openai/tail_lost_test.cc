// A takeover that has lost the end of a log which an OpenAI-compatible client has received. The client cannot take it
// back: its stream continues if the log begins with it, or else ends with an error.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "bridges/openai/responses_format.h"
#include "tests/testing/fake_parts.h"
#include "tests/testing/takeover.h"
#include "tests/unit/bridges/sse/openai/responses_bytes.h"

namespace runnel::sse {
namespace {

using testing::InEpoch;
using testing::TailLost;
using Command = testing::FakeInferenceService::Command;

const std::string kChat = R"({"model":"m","messages":[{"role":"user","content":"hi"}])";
const std::string kLegacy = R"({"model":"m","prompt":["p","q"])";
const std::string kError = "a part of the output that was sent is lost";

class TailLostTest : public ::testing::Test {
 protected:
  TailLostTest() {
    testing::FakeInferenceService::Handlers handlers;
    handlers.cancel = [this](const std::string&) {
      ++cancels_;
      return v1::CancelGenerationResponse();
    };
    harness_.service.SetHandlers(handlers);
  }

  Command Next() {
    for (;;) {
      auto command = harness_.service.NextCommand();
      EXPECT_TRUE(command.has_value());
      if (!command.has_value()) return {};
      if (!command->request.has_detach()) return *command;
      harness_.service.Detach(*command);
    }
  }
  // Starts a generation whose client receives `sent`, and breaks its Link then. Returns the attach that follows.
  Command Interrupt(const std::string& path, const std::string& body, const std::vector<v1::GenerationEvent>& sent,
                    const std::string& annotation = "") {
    client_ = harness_.Connect();
    EXPECT_TRUE(client_->Request("POST", path, "", body).ok());
    Command command = Next();
    v1::LinkResponse attached = testing::AttachedInEpoch(command, kGen, v1::GENERATION_STATUS_RUNNING, 0, 0);
    attached.mutable_replies(0)->mutable_attached()->set_existing(false);
    attached.mutable_replies(0)->mutable_attached()->set_annotation(annotation);
    harness_.service.Send(command.link, attached);
    const double before = harness_.metrics.link_events.Value();
    harness_.service.SendEvents(command, sent);
    const auto all = before + static_cast<double>(sent.size());
    EXPECT_TRUE(WaitUntil([&] { return harness_.metrics.link_events.Value() == all; }));
    harness_.service.EndLink(command.link, absl::UnavailableError("gone"));
    command = Next();
    EXPECT_TRUE(command.request.has_attach());
    EXPECT_EQ(command.request.attach().gap_policy(), v1::GAP_POLICY_SIGNAL);
    harness_.service.Attach(command, kGen);
    return command;
  }
  testing::HttpStreamClient::Response Response() {
    auto response = client_->ReadResponse();
    EXPECT_TRUE(response.ok()) << response.status();
    return response.ok() ? *std::move(response) : testing::HttpStreamClient::Response{};
  }
  // All values of "content" or "text" in the chunks of choice `index`.
  static std::string TextOf(const std::string& body, const std::string& key, int index = 0) {
    std::string text;
    for (size_t at = 0; (at = body.find("data: {", at)) != std::string::npos; ++at) {
      const auto chunk = nlohmann::json::parse(body.substr(at + 6, body.find('\n', at) - at - 6));
      if (!chunk.contains("choices") || chunk["choices"].empty() || chunk["choices"][0]["index"] != index) continue;
      const auto& choice = chunk["choices"][0];
      text += choice.contains("delta") ? choice["delta"].value(key, "") : choice.value(key, "");
    }
    return text;
  }

  std::atomic<int> cancels_ = 0;
  SseHarness harness_;
  std::unique_ptr<testing::HttpStreamClient> client_;
};

const std::vector<v1::GenerationEvent> kHel = {StartedEvent(), DeltaEvent(2, "Hel"), DeltaEvent(3, "lo")};

TEST_F(TailLostTest, AChatContinuesWithTheRest) {
  const Command command = Interrupt("/v1/chat/completions", kChat + R"(,"stream":true})", kHel);
  harness_.service.SendEvents(
      command, {TailLost(2, {"Hello wo"}), InEpoch(DeltaEvent(3, "rld")), InEpoch(DoneEvent(4, "Hello world"))});
  const auto response = Response();
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(TextOf(response.body, "content"), "Hello world");
  EXPECT_EQ(response.body.find("error"), std::string::npos);
  EXPECT_NE(response.body.find("[DONE]"), std::string::npos);
  EXPECT_EQ(cancels_, 0);
}

TEST_F(TailLostTest, AChatEndsWithAnErrorIfItsTextIsGone) {
  for (const char* other : {"Hel", "Hey", "", "Help! lo"}) {
    const int cancels = cancels_;
    const Command command = Interrupt("/v1/chat/completions", kChat + R"(,"stream":true})", kHel);
    harness_.service.SendEvents(command, {TailLost(2, {other}), InEpoch(DeltaEvent(3, "SPLICED"))});
    const auto response = Response();
    EXPECT_TRUE(response.complete) << other;
    EXPECT_EQ(TextOf(response.body, "content"), "Hello") << other;
    const size_t error = response.body.find(kError);
    ASSERT_NE(error, std::string::npos) << response.body;
    EXPECT_NE(response.body.find(R"("code":"generation_lost")"), std::string::npos);
    EXPECT_NE(response.body.find("[DONE]", error), std::string::npos);
    EXPECT_EQ(response.body.find("SPLICED"), std::string::npos);
    // Nobody can read the generation any more.
    EXPECT_TRUE(WaitUntil([&] { return cancels_ == cancels + 1; }));
  }
}

TEST_F(TailLostTest, AChatContinuesACallButNotAnotherOne) {
  std::vector<v1::GenerationEvent> sent = {StartedEvent(), testing::CallEvent(2, 0, "a", "f", "{\"x\":")};
  for (const std::string name : {"f", "g"}) {
    const Command command = Interrupt("/v1/chat/completions", kChat + R"(,"stream":true})", sent);
    v1::GenerationEvent gap = TailLost(3, {""});
    v1::PartText* part = gap.mutable_gap()->mutable_snapshot(0)->add_parts();
    part->set_kind(v1::PART_KIND_TOOL_CALL);
    part->set_id("a");
    part->set_name(name);
    part->set_content("{\"x\":1}");
    harness_.service.SendEvents(command, {gap, InEpoch(DoneEvent(4, ""))});
    const auto response = Response();
    EXPECT_EQ(response.body.find("1}") != std::string::npos, name == "f") << response.body;
    EXPECT_EQ(response.body.find(kError) != std::string::npos, name == "g") << response.body;
  }
}

// The head of a chat waits for the first delta, so nothing was sent.
TEST_F(TailLostTest, AChatThatHasSentNothingBeginsWithTheGap) {
  const Command command = Interrupt("/v1/chat/completions", kChat + R"(,"stream":true})", {StartedEvent()});
  harness_.service.SendEvents(
      command, {TailLost(0, {""}), InEpoch(StartedEvent()), InEpoch(DeltaEvent(2, "Hi")), InEpoch(DoneEvent(3, "Hi"))});
  const auto response = Response();
  EXPECT_EQ(TextOf(response.body, "content"), "Hi");
  EXPECT_EQ(response.body.find("\"role\":\"assistant\""), response.body.rfind("\"role\":\"assistant\""));
}

TEST_F(TailLostTest, OnePromptOfSeveralContinues) {
  for (const bool same : {true, false}) {
    client_ = harness_.Connect();
    ASSERT_TRUE(client_->Request("POST", "/v1/completions", "", kLegacy + R"(,"stream":true})").ok());
    Command a = Next();
    Command b = Next();
    harness_.service.Attach(b, FakeId('b'));
    harness_.service.Attach(a, FakeId('a'));
    harness_.service.SendEvents(a, {StartedEvent(), DeltaEvent(2, "one")});
    b = Next();  // it had to wait for the other
    harness_.service.Attach(b, FakeId('b'));
    harness_.service.SendEvents(b, {StartedEvent(), DeltaEvent(2, "two")});
    ASSERT_TRUE(client_->ReadHead().ok());
    ASSERT_TRUE(client_->ReadUntil("two").ok());
    harness_.service.SendEvents(b, {TailLost(2, {same ? "two!" : "too"}), InEpoch(DoneEvent(3, ""))});
    harness_.service.SendEvents(a, {DoneEvent(3, "one")});
    const auto rest = client_->ReadUntil("[DONE]");
    ASSERT_TRUE(rest.ok());
    EXPECT_EQ(TextOf(*rest, "text", 1), same ? "!" : "");
    EXPECT_EQ(rest->find(kError) != std::string::npos, !same) << *rest;
  }
}

TEST_F(TailLostTest, AResponseInOnePieceIsCollectedAgain) {
  struct Row {
    std::string path, body, annotation;
  };
  for (const Row& row :
       {Row{"/v1/chat/completions", kChat + "}", ""}, Row{"/v1/completions", R"({"model":"m","prompt":"p"})", ""},
        Row{"/v1/responses", Body(""), Annotation()}}) {
    const Command command = Interrupt(row.path, row.body, kHel, row.annotation);
    harness_.service.SendEvents(command, {TailLost(2, {"He"}), InEpoch(DeltaEvent(3, "SPLICED"))});
    const Command again = Next();
    ASSERT_TRUE(again.request.has_attach()) << row.path;
    EXPECT_EQ(again.request.attach().after_seq(), 0u);
    EXPECT_EQ(again.request.attach().after_epoch(), 0u);
    harness_.service.Attach(again, kGen);
    v1::GenerationEvent done = InEpoch(DoneEvent(4, "Heya"));
    harness_.service.SendEvents(
        again, {InEpoch(StartedEvent()), InEpoch(DeltaEvent(2, "He")), InEpoch(DeltaEvent(3, "ya")), done});
    const auto response = Response();
    EXPECT_EQ(response.head.status, 200) << response.body;
    EXPECT_NE(response.body.find("\"Heya\""), std::string::npos) << response.body;
    EXPECT_EQ(response.body.find("SPLICED"), std::string::npos);
  }
  EXPECT_EQ(cancels_, 0);
}

// The whole stream of an undisturbed response, with numbers that every bridge gives its events.
TEST_F(TailLostTest, AStreamOfAResponseContinuesWithTheNumbersOfTheLog) {
  const std::string stream = Body(R"(,"stream":true)");
  // 2 `Hel`, 3 `lo`; the log then has 2 `Hel`, 3 `lo`, 4 `!`, 5 `?`.
  Command command = Interrupt(kPath, stream, kHel, Annotation());
  harness_.service.SendEvents(command,
                              {TailLost(4, {"Hello!"}), InEpoch(DeltaEvent(5, "?")), InEpoch(DoneEvent(6, "Hello!?"))});
  const std::string continued = Response().body;
  command = Interrupt(kPath, stream, {StartedEvent(), DeltaEvent(2, "Hel"), DeltaEvent(3, "lo"), DeltaEvent(4, "!")},
                      Annotation());
  harness_.service.SendEvents(command, {DeltaEvent(5, "?"), DoneEvent(6, "Hello!?")});
  EXPECT_EQ(continued, Response().body);
}

TEST_F(TailLostTest, AStreamOfAResponseEndsWithAnErrorOtherwise) {
  // Another text; none; one with fewer events, whose numbers would be repeated.
  for (const auto& gap : {TailLost(4, {"Help"}), TailLost(0, {""}), TailLost(2, {"Hello!"})}) {
    const Command command = Interrupt(kPath, Body(R"(,"stream":true)"), kHel, Annotation());
    harness_.service.SendEvents(command, {gap, InEpoch(DeltaEvent(gap.seq() + 1, "SPLICED"))});
    const auto response = Response();
    EXPECT_TRUE(response.complete);
    const size_t error = response.body.find("event: error\ndata: {\"type\":\"error\",\"sequence_number\":6,");
    ASSERT_NE(error, std::string::npos) << response.body;
    EXPECT_NE(response.body.find(R"("code":"generation_lost")", error), std::string::npos);
    EXPECT_EQ(response.body.find("SPLICED"), std::string::npos);
  }
}

}  // namespace
}  // namespace runnel::sse
