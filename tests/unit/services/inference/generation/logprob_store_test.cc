#include "services/inference/generation/logprob_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

namespace runnel::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const TokenLogprob kPlain{"a", -0.5f, {}};
const TokenLogprob kBytes{std::string("\0\xff\n", 3), -std::numeric_limits<float>::infinity(), {{"", 0, {}}}};
const TokenLogprob kLong{std::string(300, 'x'), -1, std::vector<TokenLogprob>(20, {std::string(129, 'y'), -3, {}})};

TEST(LogprobStore, ReturnsWhatWasAdded) {
  LogprobStore store;
  store.Add(0, std::vector{kPlain, kBytes});
  store.Add(1, std::vector{kLong});
  EXPECT_THAT(store.Get(0, 1), ElementsAre(kPlain, kBytes));
  EXPECT_THAT(store.Get(1, 2), ElementsAre(kLong));
  EXPECT_THAT(store.Get(0, 2), ElementsAre(kPlain, kBytes, kLong));
  EXPECT_THAT(store.Get(1, 1), IsEmpty());
}

TEST(LogprobStore, DeltasLeftOutHaveNone) {
  LogprobStore store;
  store.Add(2, std::vector{kPlain});
  store.Add(5, std::vector{kBytes});
  EXPECT_THAT(store.Get(0, 2), IsEmpty());
  EXPECT_THAT(store.Get(2, 5), ElementsAre(kPlain));
  EXPECT_THAT(store.Get(3, 9), ElementsAre(kBytes));
  EXPECT_THAT(store.Get(6, 9), IsEmpty());
}

TEST(LogprobStore, WireBytesIsAnUpperBound) {
  LogprobStore store;
  const std::vector<TokenLogprob> all{kPlain, kBytes, kLong};
  store.Add(0, all);
  EXPECT_GE(store.WireBytes(0, 1), ContentBytes(Delta{0, "", 3, all}));
  EXPECT_EQ(store.WireBytes(1, 2), 0u);
}

}  // namespace
}  // namespace runnel::inference
