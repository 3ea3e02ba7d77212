// How soon a cancelled generation ends, and that the others notice nothing.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/testing/recording_sink.h"
#include "tests/unit/services/inference/engines/llama/llama_scheduler_fixture.h"

namespace runnel::inference {
namespace {

using testing::FakeDecoder;
using testing::RecordingSink;
using LlamaSchedulerCancelTest = LlamaSchedulerTest;

TEST_F(LlamaSchedulerCancelTest, CancelInAnAnswerEndsWithinAStep) {
  auto sink = std::make_shared<RecordingSink>();
  sink->CancelAfter(5);
  scheduler().Start(Job(1, 10, 200), sink);
  const auto record = sink->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kCancelled);
  EXPECT_EQ(record.choices[0].deltas.size(), 5u);
}

TEST_F(LlamaSchedulerCancelTest, CancelInAPromptEndsWithinAStep) {
  auto sink = std::make_shared<RecordingSink>();
  decoder().on_decode = [&](uint32_t batch, auto) {
    if (batch == 2) sink->CancelAfter(0);
  };
  scheduler().Start(Job(1, 200, 200), sink);
  EXPECT_EQ(sink->WaitForEnd().choices[0].reason, FinishReason::kCancelled);
  scheduler().Stop();
  EXPECT_EQ(decoder().batches, 2u);
}

TEST_F(LlamaSchedulerCancelTest, CancelInTheQueueEndsWithoutBeginning) {
  decoder_options_.sequences = 1;
  auto waiting = std::make_shared<RecordingSink>();
  const LlamaJob job = Job(1, 10, 30);
  decoder().on_decode = [&](uint32_t batch, auto) {
    if (batch == 1) scheduler().Start(Job(2, 10, 30), waiting);
    if (batch == 4) waiting->CancelAfter(0);
    // Step 5 has seen it.
    if (batch == 6) {
      EXPECT_TRUE(waiting->ended());
    }
  };
  const auto running = Start(job);
  ExpectAnswer(job, running->WaitForEnd());
  const auto record = waiting->WaitForEnd();
  EXPECT_EQ(record.choices[0].reason, FinishReason::kCancelled);
  EXPECT_FALSE(record.begun);
}

TEST_F(LlamaSchedulerCancelTest, CancelOfOneLeavesTheOthersExact) {
  auto cancelled = std::make_shared<RecordingSink>(2);
  cancelled->CancelAfter(7);
  const LlamaJob job = Job(1, 30, 60);
  const auto sink = Start(job);
  scheduler().Start(Job(2, 30, 60, 2), cancelled);
  ExpectAnswer(job, sink->WaitForEnd());
  EXPECT_EQ(cancelled->WaitForEnd().choices[1].reason, FinishReason::kCancelled);
}

}  // namespace
}  // namespace runnel::inference
