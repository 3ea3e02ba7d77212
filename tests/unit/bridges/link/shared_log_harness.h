#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <string>
#include <utility>

#include "services/base/grpc_status.h"
#include "tests/testing/takeover.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {

using testing::Draining;
using testing::Gone;
using testing::InEpoch;
using testing::kEpoch;
using testing::LogUnavailable;
using testing::Moved;
using testing::OwnedElsewhere;

inline const std::string kOfFirst = "gen_aaaa" + std::string(22, 'x');
inline const std::string kOfSecond = "gen_bbbb" + std::string(22, 'x');
inline const std::string kOfNone = "gen_cccc" + std::string(22, 'x');

inline FakeInferenceService::Options Sharing(const std::string& prefix, bool shared_log = true) {
  FakeInferenceService::Options options;
  options.id_prefix = prefix;
  options.shared_log = shared_log;
  options.claim_lease_seconds = 60;
  return options;
}

// One io thread with Links to two replicas, aaaa and bbbb, which share their logs unless told otherwise.
class SharedLogFixture : public ::testing::Test {
 protected:
  static BridgeOptions Options(absl::Duration timeout) {
    BridgeOptions options = LinkHarness::QuickOptions();
    options.open_timeout = options.recovery_timeout = timeout;
    return options;
  }

  explicit SharedLogFixture(const BridgeOptions& options = LinkHarness::QuickOptions(), bool first_shares = true)
      : second(Sharing("bbbb")),
        harness(options, Sharing("aaaa", first_shares), "," + second.target()),
        first(harness.service) {
    EXPECT_TRUE(Connected(2));
  }

  bool Connected(size_t count) {
    return WaitUntil([this, count] { return harness.thread().router.connected() == count; });
  }
  // The next command at any replica, and which one got it. Detaches are answered, as every replica does.
  std::pair<FakeInferenceService*, FakeInferenceService::Command> Next() {
    for (;;) {
      const bool arrived = WaitUntil([this] { return first.pending_commands() > 0 || second.pending_commands() > 0; });
      EXPECT_TRUE(arrived);
      if (!arrived) return {&first, {}};
      FakeInferenceService* at = first.pending_commands() > 0 ? &first : &second;
      auto command = *at->NextCommand();
      if (!command.request.has_detach()) return {at, command};
      at->Detach(command);
    }
  }
  // Opens a reader of `id` at `at`, which has the events up to `seq`.
  RecordingReader& Open(FakeInferenceService* at, const std::string& id, LogPosition after) {
    RecordingReader& reader = harness.NewReader();
    subscription = harness.Attach(&reader, id, after);
    const auto [taker, command] = Next();
    EXPECT_EQ(taker, at);
    opened = command;
    at->Attach(command, id, v1::GENERATION_STATUS_RUNNING, after.seq);
    EXPECT_TRUE(reader.WaitFor("opened " + id + " " + std::to_string(after.seq)));
    return reader;
  }

  FakeInferenceService second;
  LinkHarness harness;
  FakeInferenceService& first;
  FakeInferenceService::Command opened;
  Subscription* subscription = nullptr;
};

}  // namespace runnel::bridge
