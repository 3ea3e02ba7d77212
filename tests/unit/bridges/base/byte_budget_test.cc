#include "bridges/base/byte_budget.h"

#include <gtest/gtest.h>

#include <thread>
#include <utility>
#include <vector>

namespace runnel::bridge {
namespace {

TEST(ByteBudget, RefusesAboveTheLimitAndReusesReleasedBytes) {
  ByteBudget budget(100);
  ByteBudget::Reservation first(&budget);
  EXPECT_TRUE(first.Grow(60));
  {
    ByteBudget::Reservation second(&budget);
    EXPECT_FALSE(second.Grow(41));
    EXPECT_EQ(second.bytes(), 0u);
    EXPECT_TRUE(second.Grow(40));
    EXPECT_FALSE(first.Grow(1));
    EXPECT_EQ(first.bytes(), 60u);
    EXPECT_EQ(budget.used(), 100u);
  }
  EXPECT_EQ(budget.used(), 60u);
  EXPECT_TRUE(first.Resize(100));
  EXPECT_TRUE(first.Resize(1));
  EXPECT_EQ(budget.used(), 1u);
  first.Release();
  EXPECT_EQ(budget.used(), 0u);
}

TEST(ByteBudget, HugeSizesDoNotOverflow) {
  ByteBudget budget(100);
  ByteBudget::Reservation reservation(&budget);
  EXPECT_TRUE(reservation.Grow(1));
  EXPECT_FALSE(reservation.Resize(SIZE_MAX));
  EXPECT_EQ(budget.used(), 1u);
}

TEST(ByteBudget, MovedReservationIsReturnedOnce) {
  ByteBudget budget(100);
  {
    ByteBudget::Reservation first(&budget);
    EXPECT_TRUE(first.Grow(10));
    const ByteBudget::Reservation second(std::move(first));
    EXPECT_EQ(second.bytes(), 10u);
    EXPECT_EQ(budget.used(), 10u);
  }
  EXPECT_EQ(budget.used(), 0u);
}

TEST(ByteBudget, ManyThreadsNeverHoldMoreThanTheLimit) {
  constexpr size_t kLimit = 1000;
  ByteBudget budget(kLimit);
  std::atomic<size_t> held = 0;
  std::atomic<bool> exceeded = false;
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 2000; ++round) {
        ByteBudget::Reservation reservation(&budget);
        if (!reservation.Grow(400)) continue;
        if (held.fetch_add(400) + 400 > kLimit) exceeded = true;
        held.fetch_sub(400);
      }
    });
  }
  threads.clear();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(budget.used(), 0u);
}

}  // namespace
}  // namespace runnel::bridge
