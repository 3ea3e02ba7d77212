#include "services/inference/engines/upstream/upstream_poller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "services/base/unique_fd.h"

namespace runnel::inference {
namespace {

using ::testing::ElementsAre;

// A socket of which the poller reports to a function, and the other end of it.
class FakeReader final : public UpstreamPoller::Reader {
 public:
  FakeReader(UpstreamPoller* poller, std::function<void(bool closed)> on_readable)
      : poller_(poller), on_readable_(std::move(on_readable)) {
    int fds[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    ours_.reset(fds[0]);
    theirs_.reset(fds[1]);
    EXPECT_TRUE(poller_->Add(ours_.get(), this));
  }
  ~FakeReader() { poller_->Remove(ours_.get(), this); }

  void OnReadable(bool closed) noexcept override {
    char buffer[16];
    while (read(ours_.get(), buffer, sizeof(buffer)) > 0) {
    }
    on_readable_(closed);
  }
  void Prefetch() const noexcept override { ++prefetched_; }

  void Send() { EXPECT_EQ(write(theirs_.get(), "x", 1), 1); }
  void CloseOtherEnd() { theirs_.reset(); }
  int prefetched() const { return prefetched_; }

 private:
  UpstreamPoller* const poller_;
  const std::function<void(bool closed)> on_readable_;
  base::UniqueFd ours_;
  base::UniqueFd theirs_;
  mutable int prefetched_ = 0;
};

TEST(UpstreamPollerTest, ReportsASocketOncePerArrivalAndItsEnd) {
  UpstreamPoller poller;
  std::vector<bool> calls;
  FakeReader reader(&poller, [&](bool closed) { calls.push_back(closed); });
  poller.Poll();  // writable
  calls.clear();
  EXPECT_EQ(poller.Poll(), 0u);
  reader.Send();
  EXPECT_EQ(poller.Poll(), 1u);
  EXPECT_EQ(poller.Poll(), 0u);
  reader.CloseOtherEnd();
  EXPECT_EQ(poller.Poll(), 1u);
  EXPECT_THAT(calls, ElementsAre(false, true));
}

TEST(UpstreamPollerTest, CallsAReaderAgainWithoutAnArrival) {
  UpstreamPoller poller;
  int calls = 0;
  FakeReader reader(&poller, [&](bool) {
    if (++calls == 2) poller.Again(&reader);
  });
  poller.Poll();
  reader.Send();
  poller.Poll();
  EXPECT_TRUE(poller.again());
  EXPECT_EQ(poller.Poll(), 1u);
  EXPECT_FALSE(poller.again());
  EXPECT_EQ(calls, 3);
}

// The first reader of a batch destroys all others, of which some have been prefetched and none has been called.
TEST(UpstreamPollerTest, ForgetsReadersThatAnotherReaderDestroys) {
  UpstreamPoller poller;
  std::vector<std::unique_ptr<FakeReader>> readers;
  bool armed = false;
  int calls = 0;
  for (int i = 0; i < 16; ++i) {
    readers.push_back(std::make_unique<FakeReader>(&poller, [&readers, &armed, &calls, i](bool) {
      if (!armed) return;
      ++calls;
      for (size_t other = 0; other < readers.size(); ++other) {
        if (other != static_cast<size_t>(i)) readers[other].reset();
      }
    }));
  }
  poller.Poll();  // writable
  int prefetched = 0;
  for (const auto& reader : readers) prefetched += reader->prefetched();
  EXPECT_EQ(prefetched, 14);  // all but the first two
  armed = true;
  for (const auto& reader : readers) reader->Send();
  poller.Poll();
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace runnel::inference
