#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "services/base/metrics.h"
#include "services/inference/engines/upstream/upstream_engine.h"
#include "tests/testing/fake_openai_server.h"
#include "tests/unit/services/inference/engines/upstream/fake_sink.h"

namespace runnel::testing {

// A fake server and an engine that uses it, with timeouts for tests.
class EngineHarness : public ::testing::Test {
 protected:
  using Fake = FakeOpenAiServer;
  using End = FakeOpenAiServer::End;

  EngineHarness() {
    options_.urls = {server_.url()};
    options_.model = "fake-model";
  }
  ~EngineHarness() override {
    server_.Release();
    if (engine_ != nullptr) engine_->Stop();
  }

  inference::Engine& engine() {
    if (engine_ == nullptr) {
      auto engine = inference::CreateUpstreamEngine(options_, &metrics_);
      EXPECT_TRUE(engine.ok()) << engine.status();
      engine_ = std::move(engine).value();
    }
    return *engine_;
  }

  static inference::GenerationRequest Chat() {
    inference::GenerationRequest request;
    request.model = "fake-model";
    request.messages = {{inference::ChatRole::kUser, "Hi"}};
    request.seed = 7;
    request.seed_given = true;
    request.max_tokens = 16;
    request.token_limit_name = inference::TokenLimitName::kMaxTokens;
    return request;
  }

  std::shared_ptr<FakeSink> Start(const inference::GenerationRequest& request = Chat()) {
    auto sink = std::make_shared<FakeSink>(request.choice_count);
    Start(request, sink);
    return sink;
  }
  void Start(const inference::GenerationRequest& request, const std::shared_ptr<FakeSink>& sink) {
    auto prepared = engine().Prepare(request);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    engine().Start(std::move(prepared).value(), sink);
  }

  // Runs a generation to its end and returns its story.
  std::string StoryOf(Fake::Answer answer) {
    server_.Push(std::move(answer));
    const auto sink = Start();
    EXPECT_TRUE(sink->WaitEnded());
    return sink->Story();
  }

  static Fake::Answer Whole(std::vector<std::string> pieces) {
    return {200, "text/event-stream", std::move(pieces), End::kWhole, false, {}};
  }
  static Fake::Answer Hanging(std::vector<std::string> pieces) {
    return {200, "text/event-stream", std::move(pieces), End::kHang, false, {}};
  }
  static Fake::Answer Hello() {
    return Whole({Fake::ChatDelta(""), Fake::ChatDelta("Hel"), Fake::ChatDelta("lo"), Fake::ChatFinish("stop"),
                  Fake::UsageChunk(9, 2), Fake::DoneEvent()});
  }

  bool Exposes(const std::string& line) { return metrics_.Expose().find(line + "\n") != std::string::npos; }

  base::Metrics metrics_;
  Fake server_;
  inference::UpstreamOptions options_;
  std::unique_ptr<inference::Engine> engine_;
};

}  // namespace runnel::testing
