#include "bridges/base/spare_buffers.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace runnel::bridge {
namespace {

// Runs `test` on a new thread, which has no spare buffers.
void OnNewThread(void (*test)()) { std::thread(test).join(); }

TEST(SpareBuffers, LendTheBufferReturnedLast) {
  OnNewThread([] {
    std::string first(1000, 'x');
    const char* memory = first.data();
    ReturnBuffer(&first);
    EXPECT_TRUE(first.empty());
    EXPECT_LT(first.capacity(), 1000u);
    std::string second;
    BorrowBuffer(&second);
    EXPECT_TRUE(second.empty());
    EXPECT_EQ(second.data(), memory);
  });
}

TEST(SpareBuffers, LeaveABufferThatIsInUse) {
  OnNewThread([] {
    std::string spare(1000, 'x');
    ReturnBuffer(&spare);
    std::string out = "a";
    BorrowBuffer(&out);
    EXPECT_EQ(out, "a");
    EXPECT_LT(out.capacity(), 1000u);
  });
}

TEST(SpareBuffers, AreBounded) {
  OnNewThread([] {
    std::string large(kMaxSpareBytes + 1, 'x');
    ReturnBuffer(&large);
    std::string out;
    BorrowBuffer(&out);
    EXPECT_LT(out.capacity(), kMaxSpareBytes);

    std::vector<std::string> many(kMaxSpareBuffers + 1, std::string(100, 'x'));
    for (std::string& buffer : many) ReturnBuffer(&buffer);
    size_t borrowed = 0;
    for (std::string& buffer : many) {
      BorrowBuffer(&buffer);
      borrowed += buffer.capacity() >= 100 ? 1 : 0;
    }
    EXPECT_EQ(borrowed, kMaxSpareBuffers);
  });
}

}  // namespace
}  // namespace runnel::bridge
