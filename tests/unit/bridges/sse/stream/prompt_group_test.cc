// Several prompts in one request of /v1/completions: a generation for each, and one response.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "services/base/mutex.h"
#include "tests/unit/bridges/sse/sse_harness.h"

namespace runnel::sse {
namespace {

using Command = testing::FakeInferenceService::Command;

const std::string kHead = R"({"id":"cmpl-)" + std::string(26, 'a') +
                          R"(","object":"text_completion","created":1795410000,"model":"fake","choices":[)";
const std::string kUsage =
    R"("usage":{"prompt_tokens":18,"completion_tokens":4,"total_tokens":22,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}})";

std::string Choice(int index, const std::string& text, const std::string& reason = "") {
  return "{\"index\":" + std::to_string(index) + ",\"text\":\"" + text +
         "\",\"logprobs\":null,\"finish_reason\":" + (reason.empty() ? "null" : "\"" + reason + "\"") + "}";
}
std::string Chunk(const std::string& choice) { return "data: " + kHead + choice + "],\"usage\":null}\n\n"; }

// The end of two choices, the second of which reached its limit.
v1::GenerationEvent DoneOfTwo(uint64_t seq) {
  v1::GenerationEvent event = DoneEvent(seq, "");
  event.mutable_done()->mutable_choices(0)->set_finish_reason(v1::FINISH_REASON_STOP);
  v1::ChoiceEnd* second = event.mutable_done()->add_choices();
  second->set_index(1);
  second->set_finish_reason(v1::FINISH_REASON_LENGTH);
  return event;
}

// The prompts "p" and "q" with n = 2: the generations a and b.
class PromptGroupTest : public ::testing::Test {
 protected:
  PromptGroupTest() {
    testing::FakeInferenceService::Handlers handlers;
    handlers.cancel = [this](const std::string& id) {
      base::MutexLock lock(&mu_);
      cancelled_.push_back(id);
      return v1::CancelGenerationResponse();
    };
    harness_.service.SetHandlers(handlers);
  }

  void Ask(bool stream, int receive_buffer_bytes = 0) {
    client_ = harness_.Connect(receive_buffer_bytes);
    const std::string more = stream ? R"(,"stream":true,"stream_options":{"include_usage":true}})" : "}";
    const std::string body = R"({"model":"m","prompt":["p","q"],"n":2)" + more;
    ASSERT_TRUE(client_->Request("POST", "/v1/completions", "", body).ok());
    ASSERT_NO_FATAL_FAILURE(Take(&a_));
    ASSERT_NO_FATAL_FAILURE(Take(&b_));
    const v1::GenerateRequest& first = a_.request.generate().request();
    const v1::GenerateRequest& second = b_.request.generate().request();
    EXPECT_EQ(first.prompt() + second.prompt(), "pq");
    EXPECT_EQ(first.choice_count() + second.choice_count(), 4u);
    EXPECT_EQ(second.detach_timeout().seconds(), 35);
    EXPECT_NE(first.request_id(), second.request_id());
  }
  void Take(Command* command) {
    auto taken = harness_.service.NextCommand();
    ASSERT_TRUE(taken.has_value());
    *command = *std::move(taken);
  }
  // A generation that had to wait for the others continues where it was.
  void TakeAttach(Command* command, char letter, uint64_t after_seq) {
    ASSERT_NO_FATAL_FAILURE(Take(command));
    ASSERT_TRUE(command->request.has_attach());
    EXPECT_EQ(command->request.attach().generation_id(), FakeId(letter));
    EXPECT_EQ(command->request.attach().after_seq(), after_seq);
    harness_.service.Attach(*command, FakeId(letter));
  }
  void TakeDetach() {
    Command detach;
    ASSERT_NO_FATAL_FAILURE(Take(&detach));
    ASSERT_TRUE(detach.request.has_detach());
    harness_.service.Detach(detach);
  }
  // Both are admitted, the second first, and `started` of the first is passed on.
  void BeginBoth() {
    harness_.service.Attach(b_, FakeId('b'));
    ASSERT_NO_FATAL_FAILURE(TakeDetach());
    harness_.service.Attach(a_, FakeId('a'));
    harness_.service.SendEvents(a_, {StartedEvent()});
    ASSERT_NO_FATAL_FAILURE(TakeAttach(&b_, 'b', 0));
  }
  bool WaitForCancels(std::vector<std::string> ids) {
    return WaitUntil([&] {
      base::MutexLock lock(&mu_);
      std::sort(cancelled_.begin(), cancelled_.end());
      return cancelled_ == ids;
    });
  }

  base::Mutex mu_;
  std::vector<std::string> cancelled_ GUARDED_BY(mu_);
  SseHarness harness_;
  std::unique_ptr<testing::HttpStreamClient> client_;
  Command a_;
  Command b_;
};

TEST_F(PromptGroupTest, StreamsTheChoicesOfAllPromptsAndTheSumOfTheirUsage) {
  ASSERT_NO_FATAL_FAILURE(Ask(true));
  ASSERT_NO_FATAL_FAILURE(BeginBoth());
  harness_.service.SendEvents(a_, {DeltaEvent(2, "a0"), DeltaEvent(3, "no", 2)});
  harness_.service.SendEvents(b_, {StartedEvent(), DeltaEvent(2, "b1", 1), DoneOfTwo(3)});
  harness_.service.SendEvents(a_, {DeltaEvent(4, "a1", 1), DoneOfTwo(5)});
  const auto response = client_->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.headers.at("x-generation-id"), FakeId('a'));
  EXPECT_EQ(response->body, Chunk(Choice(0, "a0")) + Chunk(Choice(3, "b1")) + Chunk(Choice(1, "a1")) +
                                Chunk(Choice(0, "", "stop")) + Chunk(Choice(1, "", "length")) +
                                Chunk(Choice(2, "", "stop")) + Chunk(Choice(3, "", "length")) + "data: " + kHead +
                                "]," + kUsage + "\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(response->complete);
  EXPECT_TRUE(WaitForCancels({}));
}

TEST_F(PromptGroupTest, ARejectionOfOneRejectsAll) {
  ASSERT_NO_FATAL_FAILURE(Ask(true));
  harness_.service.Attach(a_, FakeId('a'));
  harness_.service.SendEvents(a_, {StartedEvent(), DeltaEvent(2, "too early")});
  ASSERT_NO_FATAL_FAILURE(TakeDetach());
  harness_.service.Reject(b_, base::InvalidField("messages", "are too long"));
  const auto response = client_->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 400);
  EXPECT_EQ(
      response->body,
      R"({"error":{"message":"prompt: are too long","type":"invalid_request_error","param":"prompt","code":null}})");
  EXPECT_TRUE(WaitForCancels({FakeId('a')}));
}

TEST_F(PromptGroupTest, AFailureOfOneEndsAllWithAnError) {
  ASSERT_NO_FATAL_FAILURE(Ask(true));
  ASSERT_NO_FATAL_FAILURE(BeginBoth());
  harness_.service.SendEvents(b_, {StartedEvent(), DeltaEvent(2, "b0"), FailedEvent(3, "engine_failed")});
  const auto response = client_->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(
      response->body,
      Chunk(Choice(2, "b0")) +
          R"(data: {"error":{"message":"it \"broke\"","type":"server_error","param":null,"code":"engine_failed"}})" +
          "\n\ndata: [DONE]\n\n");
  EXPECT_TRUE(response->complete);
  EXPECT_TRUE(WaitForCancels({FakeId('a')}));
}

TEST_F(PromptGroupTest, ABrokenStreamBreaksTheTransportAfterTheFirstHasEnded) {
  ASSERT_NO_FATAL_FAILURE(Ask(true));
  ASSERT_NO_FATAL_FAILURE(BeginBoth());
  harness_.service.SendEvents(a_, {DoneOfTwo(2)});
  harness_.service.SendEvents(b_, {StartedEvent(), DeltaEvent(2, "b0")});
  ASSERT_TRUE(client_->ReadHead().ok());
  ASSERT_TRUE(client_->ReadUntil("b0").ok());
  harness_.service.EndLink(b_.link, absl::UnavailableError("gone"));
  Command again;
  ASSERT_NO_FATAL_FAILURE(Take(&again));
  EXPECT_EQ(again.request.attach().generation_id(), FakeId('b'));
  harness_.service.Reject(again, absl::InternalError("a fault"));
  absl::StatusOr<std::string> rest = client_->ReadChunk();
  while (rest.ok()) {
    EXPECT_EQ(rest->find("[DONE]"), std::string::npos);
    rest = client_->ReadChunk();
  }
  EXPECT_EQ(rest.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(WaitForCancels({FakeId('b')}));
}

TEST_F(PromptGroupTest, ADisconnectCancelsAll) {
  for (const bool stream : {true, false}) {
    ASSERT_NO_FATAL_FAILURE(Ask(stream));
    if (stream) {
      ASSERT_NO_FATAL_FAILURE(BeginBoth());
      harness_.service.SendEvents(a_, {DeltaEvent(2, "a")});
      ASSERT_TRUE(client_->ReadHead().ok());
    } else {
      const double before = harness_.metrics.link_events.Value();
      harness_.service.Attach(b_, FakeId('b'));
      harness_.service.Attach(a_, FakeId('a'));
      harness_.service.SendEvents(a_, {StartedEvent()});
      ASSERT_TRUE(WaitUntil([&] { return harness_.metrics.link_events.Value() == before + 1; }));
    }
    client_.reset();
    EXPECT_TRUE(WaitForCancels({FakeId('a'), FakeId('b')})) << stream;
    Command detach;
    ASSERT_NO_FATAL_FAILURE(Take(&detach));
    ASSERT_NO_FATAL_FAILURE(Take(&detach));
    base::MutexLock lock(&mu_);
    cancelled_.clear();
  }
}

TEST_F(PromptGroupTest, ASlowReaderHoldsAllBackAndLosesNothing) {
  ASSERT_NO_FATAL_FAILURE(Ask(true, 4096));
  ASSERT_NO_FATAL_FAILURE(BeginBoth());
  harness_.service.SendEvents(a_, {DoneOfTwo(2)});
  harness_.service.SendEvents(b_, {StartedEvent()});
  // The first has ended, so it is not its subscription that holds back the second.
  uint64_t sent = 1;
  while (harness_.metrics.slow_pauses.Value() == 0) {
    std::vector<v1::GenerationEvent> events;
    for (int i = 0; i < 16; ++i) events.push_back(DeltaEvent(++sent, std::string(4096, '#')));
    const double handled = harness_.metrics.link_batches.Value();
    harness_.service.SendEvents(b_, std::move(events));
    ASSERT_LT(sent, 100'000u);
    ASSERT_TRUE(WaitUntil([&] { return harness_.metrics.link_batches.Value() > handled; }));
  }
  ASSERT_NO_FATAL_FAILURE(TakeDetach());
  ASSERT_TRUE(client_->ReadHead().ok());
  std::string text;
  while (harness_.service.pending_commands() == 0) {
    const auto chunk = client_->ReadChunk();
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    text += *chunk;
  }
  Command attach;
  ASSERT_NO_FATAL_FAILURE(Take(&attach));
  const uint64_t last = attach.request.attach().after_seq();
  harness_.service.Attach(attach, FakeId('b'));
  harness_.service.SendEvents(attach, {DoneOfTwo(last + 1)});
  const auto rest = client_->ReadUntil("[DONE]");
  ASSERT_TRUE(rest.ok()) << rest.status();
  text += *rest;
  EXPECT_EQ(static_cast<uint64_t>(std::count(text.begin(), text.end(), '#')), (last - 1) * 4096);
}

TEST_F(PromptGroupTest, RespondsInOnePieceInAnyOrderOfEnds) {
  ASSERT_NO_FATAL_FAILURE(Ask(false));
  harness_.service.Attach(b_, FakeId('b'));
  harness_.service.SendEvents(b_, {StartedEvent(), DeltaEvent(2, "b1", 1), DoneOfTwo(3)});
  harness_.service.Attach(a_, FakeId('a'));
  harness_.service.SendEvents(
      a_, {StartedEvent(), DeltaEvent(2, "a0"), DeltaEvent(3, "a"), DeltaEvent(4, "1", 1), DoneOfTwo(5)});
  const auto response = client_->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->body, kHead + Choice(0, "a0a", "stop") + "," + Choice(1, "1", "length") + "," +
                                Choice(2, "", "stop") + "," + Choice(3, "b1", "length") + "]," + kUsage);
}

TEST_F(PromptGroupTest, AFailureOfOneIsTheResponseAndCancelsTheRest) {
  ASSERT_NO_FATAL_FAILURE(Ask(false));
  harness_.service.Attach(b_, FakeId('b'));
  harness_.service.Attach(a_, FakeId('a'));
  harness_.service.SendEvents(b_, {StartedEvent()});
  harness_.service.SendEvents(a_, {StartedEvent(), FailedEvent(2, "engine_unavailable")});
  const auto response = client_->ReadResponse();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->head.status, 503);
  EXPECT_TRUE(WaitForCancels({FakeId('b')}));
}

}  // namespace
}  // namespace runnel::sse
