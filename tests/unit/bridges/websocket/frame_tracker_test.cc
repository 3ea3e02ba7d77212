#include "bridges/websocket/frame_tracker.h"

#include <gtest/gtest.h>

#include <string>

namespace runnel::websocket {
namespace {

// A masked frame with a payload of `bytes` zeros.
std::string Frame(uint8_t first, uint64_t bytes, int form = 0) {
  if (form == 0) form = bytes < 126 ? 1 : bytes <= 0xffff ? 2 : 8;
  std::string frame(1, static_cast<char>(first));
  frame.push_back(static_cast<char>(0x80 | (form == 1 ? bytes : form == 2 ? 126 : 127)));
  for (int i = form == 1 ? 0 : form; i > 0; --i) frame.push_back(static_cast<char>(bytes >> (8 * (i - 1))));
  return frame + std::string(4 + bytes, '\0');
}

constexpr uint8_t kText = 0x81, kFirst = 0x01, kMiddle = 0x00, kLast = 0x80, kPing = 0x89;

TEST(FrameTracker, FindsTheEndOfEachFrameWhereverItsBytesAreSplit) {
  for (const std::string& frame : {Frame(kText, 0), Frame(kText, 1), Frame(kText, 125), Frame(kText, 126),
                                   Frame(kText, 70'000), Frame(kText, 3, 8), Frame(kPing, 5), Frame(kPing, 0)}) {
    for (size_t split = 1; split < frame.size(); split += split < 20 ? 1 : 997) {
      FrameTracker tracker;
      EXPECT_TRUE(tracker.Feed(frame.substr(0, split))) << split;
      EXPECT_TRUE(tracker.unfinished()) << split;
      EXPECT_FALSE(tracker.Feed(frame.substr(split))) << split;
      EXPECT_FALSE(tracker.unfinished()) << split;
    }
  }
}

TEST(FrameTracker, ControlFramesBetweenFragmentsBeginNothing) {
  FrameTracker tracker;
  EXPECT_TRUE(tracker.Feed(Frame(kFirst, 3)));
  EXPECT_FALSE(tracker.Feed(Frame(kPing, 4)));
  EXPECT_FALSE(tracker.Feed(Frame(kPing, 4).substr(0, 3)));
  EXPECT_FALSE(tracker.Feed(Frame(kPing, 4).substr(3)));
  EXPECT_FALSE(tracker.Feed(Frame(kMiddle, 0)));
  EXPECT_TRUE(tracker.unfinished());
  EXPECT_FALSE(tracker.Feed(Frame(kLast, 3)));
  EXPECT_FALSE(tracker.unfinished());
}

TEST(FrameTracker, AMessageThatBeginsBehindTheEndOfAnotherIsNew) {
  FrameTracker tracker;
  EXPECT_TRUE(tracker.Feed(Frame(kFirst, 3)));
  EXPECT_FALSE(tracker.Feed(Frame(kLast, 3) + Frame(kText, 9)));
  EXPECT_FALSE(tracker.unfinished());
  EXPECT_TRUE(tracker.Feed(Frame(kText, 9) + Frame(kText, 9).substr(0, 1)));
  EXPECT_TRUE(tracker.Feed(Frame(kText, 9).substr(1) + Frame(kFirst, 9)));
  EXPECT_TRUE(tracker.unfinished());
}

TEST(FrameTracker, CountsTheBytesOfTheFirstMessageAndThoseBeforeIt) {
  FrameTracker tracker;
  tracker.Feed(Frame(kPing, 10));
  EXPECT_EQ(tracker.bytes_of_first_message(), 16u);
  tracker.Feed(Frame(kFirst, 10) + Frame(kPing, 0).substr(0, 1));
  EXPECT_EQ(tracker.bytes_of_first_message(), 33u);
  tracker.Feed(Frame(kPing, 0).substr(1) + Frame(kLast, 10) + Frame(kText, 500) + Frame(kPing, 1));
  EXPECT_EQ(tracker.bytes_of_first_message(), 54u);
}

TEST(FrameTracker, TakesTheLongestLengthThereIs) {
  FrameTracker tracker;
  EXPECT_TRUE(tracker.Feed(std::string("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff", 10) + std::string(1000, 'x')));
  EXPECT_TRUE(tracker.unfinished());
}

}  // namespace
}  // namespace runnel::websocket
