// /v1/responses that continue earlier ones.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "services/base/grpc_status.h"
#include "services/base/mutex.h"
#include "tests/testing/fake_parts.h"
#include "tests/unit/bridges/sse/openai/responses_bytes.h"

namespace runnel::sse {
namespace {

std::string ResponseId(char letter) { return "resp_" + std::string(26, letter); }

// A service that keeps responses with their input.
class ResponsesHistoryTest : public ::testing::Test {
 protected:
  struct Stored {
    std::vector<v1::GenerationEvent> log;
    std::string annotation;
    std::string input;
    bool text_omitted = false;
  };
  ResponsesHistoryTest() {
    testing::FakeInferenceService::Handlers handlers;
    handlers.get = [this](const std::string& id) -> absl::StatusOr<v1::Generation> {
      base::MutexLock lock(&mu_);
      const auto found = stored_.find(id);
      if (found == stored_.end()) {
        return base::MakeError(absl::StatusCode::kNotFound, "GENERATION_EXPIRED", "purged");
      }
      v1::Generation generation = testing::StateOf(found->second.log, id);
      generation.set_annotation(found->second.annotation);
      if (!found->second.text_omitted) return generation;
      generation.mutable_choices(0)->clear_text();
      generation.set_text_omitted(true);
      return generation;
    };
    handlers.input = [this](const std::string& id) {
      base::MutexLock lock(&mu_);
      return stored_[id].input;
    };
    harness_.service.SetHandlers(handlers);
  }

  void Store(char letter, std::vector<v1::GenerationEvent> log, const std::string& input,
             const std::string& more = "") {
    v1::KeptInput kept;
    v1::ChatMessage* message = kept.add_messages();
    message->set_role(v1::CHAT_ROLE_USER);
    message->set_content(input);
    base::MutexLock lock(&mu_);
    stored_[FakeId(letter)] = {std::move(log), Annotation(more), kept.SerializeAsString()};
  }
  void OmitText(char letter) {
    base::MutexLock lock(&mu_);
    stored_[FakeId(letter)].text_omitted = true;
  }
  void SetInput(char letter, std::string input) {
    base::MutexLock lock(&mu_);
    stored_[FakeId(letter)].input = std::move(input);
  }
  // The messages with which a response is started, as role:content.
  std::string MessagesFor(const std::string& more) {
    const auto client = harness_.Connect();
    EXPECT_TRUE(client->Request("POST", kPath, "", R"({"model":"m",)" + more + "}").ok());
    const auto command = harness_.service.NextCommand();
    if (!command.has_value()) return "nothing was started";
    started_ = command->request.generate().request();
    harness_.service.Reject(*command, absl::UnavailableError("enough"));
    EXPECT_EQ(client->ReadResponse()->head.status, 503);
    std::string messages;
    for (const v1::ChatMessage& message : started_.messages()) {
      messages += std::to_string(message.role()) + ":" + message.content();
      for (const v1::CalledTool& call : message.tool_calls()) messages += " " + call.id();
      messages += "\n";
    }
    return messages;
  }

  // The handlers use these on threads of the service, which harness_ ends.
  base::Mutex mu_;
  std::map<std::string, Stored> stored_ GUARDED_BY(mu_);
  SseHarness harness_;
  v1::GenerateRequest started_;
};

TEST_F(ResponsesHistoryTest, FollowsThePointers) {
  Store('b', Hello(), "a first input that takes several calls to read");
  Store('c', Hello(), "second", R"(,"previous_response_id":")" + ResponseId('b') + "\"");
  EXPECT_EQ(MessagesFor(R"("input":"third","previous_response_id":")" + ResponseId('c') + "\""),
            "2:a first input that takes several calls to read\n3:Hello\n2:second\n3:Hello\n2:third\n");
  EXPECT_EQ(started_.keep_last_messages(), 1u);
}

TEST_F(ResponsesHistoryTest, ReadsALongTextFromTheLog) {
  Store('b', Hello(), "first");
  OmitText('b');
  const auto client = harness_.Connect();
  ASSERT_TRUE(
      client
          ->Request("POST", kPath, "", R"({"model":"m","input":"x","previous_response_id":")" + ResponseId('b') + "\"}")
          .ok());
  const auto attach = harness_.service.NextCommand();
  ASSERT_TRUE(attach && attach->request.has_attach());
  harness_.service.Attach(*attach, FakeId('b'), v1::GENERATION_STATUS_DONE, 4, true);
  harness_.service.SendEvents(*attach, Hello());
  const auto start = harness_.service.NextCommand();
  ASSERT_TRUE(start && start->request.has_generate());
  ASSERT_EQ(start->request.generate().request().messages_size(), 3);
  EXPECT_EQ(start->request.generate().request().messages(1).content(), "Hello");
}

TEST_F(ResponsesHistoryTest, ResolvesItems) {
  Store('b', testing::LogOfAllParts(), "go");
  const std::string id(26, 'b');
  EXPECT_EQ(MessagesFor(R"("input":[{"role":"user","content":"go"},{"type":"item_reference","id":"msg_)" + id +
                        R"(_1"},{"type":"item_reference","id":"fc_)" + id +
                        R"(_2"},{"type":"function_call_output","call_id":"call_a","output":"5"}])"),
            "2:go\n3:Let me see. call_a\n5:5\n");
  EXPECT_EQ(started_.keep_last_messages(), 3u);
}

TEST_F(ResponsesHistoryTest, NamesTheMissingLink) {
  Store('c', Hello(), "second", R"(,"previous_response_id":")" + ResponseId('b') + "\"");
  const auto ask = [&](const std::string& more) {
    return harness_.Ask("POST", kPath, "", R"({"model":"m",)" + more + "}");
  };
  for (const auto& [named, missing] : {std::pair{'c', 'b'}, std::pair{'b', 'b'}, std::pair{'x', 'x'}}) {
    const auto response = ask(R"("input":"x","previous_response_id":")" + ResponseId(named) + "\"");
    EXPECT_EQ(response.head.status, 404);
    EXPECT_NE(response.body.find(ResponseId(missing)), std::string::npos) << response.body;
    EXPECT_NE(response.body.find("store: false"), std::string::npos);
    EXPECT_NE(response.body.find(R"("code":"previous_response_not_found")"), std::string::npos);
  }
  const std::string item = "msg_" + std::string(26, 'b');
  const auto response = ask(R"("input":[{"type":"item_reference","id":")" + item + "\"}]");
  EXPECT_EQ(response.head.status, 404);
  EXPECT_NE(response.body.find(item), std::string::npos) << response.body;
  EXPECT_NE(response.body.find(R"("param":"input[0].id","code":"item_not_found")"), std::string::npos);
  EXPECT_EQ(harness_.service.pending_commands(), 0u);
}

TEST_F(ResponsesHistoryTest, IsLimitedByTheSizeOfABody) {
  Store('b', Hello(), "first");
  SetInput('b', std::string((1 << 20) + 1, 'x'));
  const auto response =
      harness_.Ask("POST", kPath, "", R"({"model":"m","input":"x","previous_response_id":")" + ResponseId('b') + "\"}");
  EXPECT_EQ(response.head.status, 400);
  EXPECT_NE(response.body.find("more than 1048576 bytes"), std::string::npos) << response.body;
}

}  // namespace
}  // namespace runnel::sse
