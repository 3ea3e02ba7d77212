#include "services/base/exposition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "services/base/metrics.h"
#include "tests/testing/wait.h"

namespace runnel::base {
namespace {

using runnel::testing::WaitUntil;

class ExpositionTest : public ::testing::Test {
 protected:
  ExpositionTest() {
    metrics_.BeforeExpose([this] {
      counter_.Increment();
      ++begun_;
      while (held_) std::this_thread::yield();
    });
  }
  // Requests a text and keeps it.
  void Ask() {
    exposition_->Make([this](const Exposition::Text& text) {
      MutexLock lock(&mu_);
      texts_.push_back(text);
    });
  }
  size_t Count() {
    MutexLock lock(&mu_);
    return texts_.size();
  }
  Exposition::Text Wait(size_t count) {
    EXPECT_TRUE(WaitUntil([&] { return Count() >= count; }));
    MutexLock lock(&mu_);
    return texts_[count - 1];
  }

  Metrics metrics_;
  prometheus::Counter& counter_ = metrics_.Counter("runnel_expositions_total", "Expositions.");
  std::atomic<int> begun_ = 0;
  std::atomic<bool> held_ = false;
  Mutex mu_;
  std::vector<Exposition::Text> texts_;
  std::unique_ptr<Exposition> exposition_ = std::make_unique<Exposition>(&metrics_);
};

TEST_F(ExpositionTest, ScrapersThatAskMeanwhileShareTheNextText) {
  held_ = true;
  Ask();
  EXPECT_TRUE(WaitUntil([&] { return begun_ == 1; }));
  for (int i = 0; i < 50; ++i) Ask();
  held_ = false;
  const auto last = Wait(51);
  EXPECT_EQ(begun_, 2);
  EXPECT_THAT(*Wait(1), ::testing::HasSubstr("runnel_expositions_total 1"));
  EXPECT_THAT(*last, ::testing::HasSubstr("runnel_expositions_total 2"));
  EXPECT_EQ(Wait(2), last);
}

TEST_F(ExpositionTest, ATextIsNewIfFewAreInUse) {
  for (size_t i = 1; i <= 20; ++i) {
    Ask();
    EXPECT_THAT(*Wait(i), ::testing::HasSubstr("runnel_expositions_total " + std::to_string(i) + "\n"));
    MutexLock lock(&mu_);
    if (i >= 2) texts_[i - 2] = nullptr;
  }
}

TEST_F(ExpositionTest, SlowReadersHoldABoundedNumberOfTexts) {
  for (size_t i = 1; i <= 20; ++i) {
    Ask();
    Wait(i);
  }
  EXPECT_EQ(begun_, static_cast<int>(Exposition::kMaxTexts));
  EXPECT_EQ(Wait(20), Wait(Exposition::kMaxTexts));
  // Once they release it, a new one is created.
  {
    MutexLock lock(&mu_);
    texts_.assign(20, nullptr);
  }
  Ask();
  EXPECT_THAT(*Wait(21), ::testing::HasSubstr("runnel_expositions_total 5"));
}

TEST_F(ExpositionTest, EndsWithScrapersWaiting) {
  held_ = true;
  Ask();
  EXPECT_TRUE(WaitUntil([&] { return begun_ == 1; }));
  Ask();
  held_ = false;
  exposition_ = nullptr;
  EXPECT_GE(Count(), 1u);
}

}  // namespace
}  // namespace runnel::base
