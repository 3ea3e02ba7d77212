#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "services/inference/engines/scripted_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/rpc/live_calls.h"
#include "tests/unit/services/inference/rpc/service_harness.h"

namespace runnel::inference {

inline LinkOptions SmallBatches() {
  LinkOptions options;
  options.replica = "test-replica";
  options.max_attachments = 512;
  options.max_batch_bytes = 4096;
  options.max_attachment_bytes = 128;
  return options;
}

// The service with a scripted engine and small batches.
class ServiceTest : public ::testing::Test {
 protected:
  static v1::GenerateRequest Request(uint64_t seed, int tokens, const std::string& pace = "1000000") {
    v1::GenerateRequest request;
    request.set_prompt("p");
    request.set_max_tokens(1'000'000);
    request.mutable_sampling()->set_seed(seed);
    auto& metadata = *request.mutable_metadata();
    metadata["scripted.tokens"] = std::to_string(tokens);
    metadata["scripted.tokens_per_second"] = pace;
    metadata["scripted.first_token_ms"] = "0";
    return request;
  }
  static std::string ScriptedText(uint64_t seed, int tokens) {
    std::string text;
    for (int i = 0; i < tokens; ++i) text += ScriptedToken(seed, 0, static_cast<uint32_t>(i));
    return text;
  }
  // Runs a generation to its end and returns its id.
  std::string Finished(uint64_t seed, int tokens) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, Request(seed, tokens));
    v1::GenerateResponse response;
    std::string id;
    while (reader->Read(&response)) id = response.event().generation_id();
    EXPECT_TRUE(reader->Finish().ok());
    return id;
  }

  ScriptedEngine engine_{ScriptedEngine::Options()};
  ServiceHarness harness_{&engine_, SmallBatches()};
  GenerationManager& manager_ = harness_.manager;
  LiveCalls& live_ = harness_.live;
  v1::InferenceService::Stub* const stub_ = harness_.stub.get();
};

}  // namespace runnel::inference
