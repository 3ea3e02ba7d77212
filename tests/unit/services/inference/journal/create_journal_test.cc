#include "services/inference/journal/create_journal.h"

#include <gtest/gtest.h>

namespace runnel::inference {
namespace {

TEST(CreateJournal, HasNoneForMemory) {
  base::Metrics metrics;
  const auto journal = CreateJournal(LogOptions(), &metrics);
  ASSERT_TRUE(journal.ok()) << journal.status();
  EXPECT_EQ(*journal, nullptr);
}

}  // namespace
}  // namespace runnel::inference
