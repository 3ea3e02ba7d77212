// Leases of replicas, and what happens when one is gone.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "services/base/mutex.h"
#include "services/inference/journal/rendezvous.h"
#include "tests/unit/services/inference/journal/journal_servers.h"

namespace runnel::inference {
namespace {

using testing::Append;
using testing::JournalReplica;
using testing::RedisKind;
using testing::WaitForText;
using testing::WaitUntil;
using testing::WaitUntilFenced;
using Claim = Journal::Claim;
using State = Journal::Loaded::State;

// What was reported to a replica, by the prefix that is gone.
class GoneLog {
 public:
  explicit GoneLog(JournalReplica* replica) {
    replica->journal().Watch([this](Journal::Gone gone) {
      base::MutexLock lock(&mu_);
      reports_[gone.prefix].push_back(std::move(gone.running));
    });
  }
  std::vector<std::vector<std::string>> Of(const std::string& prefix) const {
    base::MutexLock lock(&mu_);
    const auto found = reports_.find(prefix);
    return found == reports_.end() ? std::vector<std::vector<std::string>>() : found->second;
  }
  bool empty() const {
    base::MutexLock lock(&mu_);
    return reports_.empty();
  }

 private:
  mutable base::Mutex mu_;
  std::map<std::string, std::vector<std::vector<std::string>>> reports_ GUARDED_BY(mu_);
};

class RedisJournalLeaseTest : public testing::JournalServerTest {
 protected:
  std::unique_ptr<JournalReplica> MakeLeased(const std::string& prefix,
                                             absl::Duration lease = absl::Milliseconds(400)) {
    return MakeReplica(prefix, [lease](auto* options) { options->log.lease = lease; });
  }
};

INSTANTIATE_TEST_SUITE_P(Servers, RedisJournalLeaseTest, ::testing::Values(RedisKind::kRedis, RedisKind::kValkey),
                         testing::NameOf);

TEST_P(RedisJournalLeaseTest, AReplicaDrawsAnotherPrefixThanALivingOne) {
  auto a = MakeReplica("aaaa");
  auto b = MakeReplica("aaaa");
  EXPECT_EQ(a->journal().id_prefix(), "aaaa");
  EXPECT_NE(b->journal().id_prefix(), "aaaa");
  EXPECT_EQ(b->journal().id_prefix().size(), 4u);
  EXPECT_TRUE(Exists("rnl:lease:" + b->journal().id_prefix()));
}

TEST_P(RedisJournalLeaseTest, IsRenewedAndReleased) {
  {
    auto a = MakeLeased("aaaa");
    const size_t before = a->link().count("HGETALL");
    EXPECT_TRUE(WaitUntil([&] { return a->link().count("HGETALL") > before + 5; }));
    EXPECT_TRUE(Exists("rnl:lease:aaaa"));
    EXPECT_EQ(a->Metric("runnel_log_lost_leases_total"), 0);
  }
  EXPECT_FALSE(Exists("rnl:lease:aaaa"));
  EXPECT_FALSE(Exists("rnl:replicas")) << "it leaves nothing to take over";
}

TEST_P(RedisJournalLeaseTest, GenerationsOfAReplicaThatIsGoneAreDividedAmongTheOthers) {
  auto a = MakeLeased("aaaa");
  auto c = MakeLeased("cccc");
  GoneLog of_a(a.get());
  GoneLog of_c(c.get());
  auto b = MakeLeased("bbbb");
  std::vector<std::string> ids;
  for (int i = 0; i < 12; ++i) ids.push_back(b->Start()->id());
  // It is cut off from the store, like a process that is stopped.
  b->link().Hold("SET");
  ASSERT_TRUE(WaitUntil([&] { return !of_a.Of("bbbb").empty() && !of_c.Of("bbbb").empty(); }));
  std::vector<std::string> divided = of_a.Of("bbbb")[0];
  for (const std::string& id : divided) EXPECT_EQ(ChooseReplica({"aaaa", "cccc"}, id), "aaaa");
  const std::vector<std::string> rest = of_c.Of("bbbb")[0];
  divided.insert(divided.end(), rest.begin(), rest.end());
  std::sort(ids.begin(), ids.end());
  std::sort(divided.begin(), divided.end());
  EXPECT_EQ(divided, ids);
  // Those that are not taken over are reported again.
  const std::string first = ids.front();
  EXPECT_EQ(a->Load(first, Claim::kTakeOver, std::nullopt)->state, State::kTaken);
  EXPECT_TRUE(WaitUntil([&] { return of_a.Of("bbbb").size() > 1 && of_c.Of("bbbb").size() > 1; }));
  for (GoneLog* each : {&of_a, &of_c}) {
    const std::vector<std::string> left = each->Of("bbbb").back();
    EXPECT_EQ(std::count(left.begin(), left.end(), first), 0);
  }
  EXPECT_TRUE(of_a.Of("cccc").empty());
}

TEST_P(RedisJournalLeaseTest, AnOwnerThatComesBackTakesItsLeaseAgain) {
  auto a = MakeLeased("aaaa");
  GoneLog of_a(a.get());
  auto b = MakeLeased("bbbb");
  const auto kept = b->Start();
  const auto lost = b->Start();
  b->link().Hold("SET");
  ASSERT_TRUE(WaitUntil([&] { return !of_a.Of("bbbb").empty(); }));
  ASSERT_EQ(a->Load(lost->id(), Claim::kTakeOver)->state, State::kTaken);
  b->link().Release();
  EXPECT_TRUE(WaitUntil([&] { return Exists("rnl:lease:bbbb"); }));
  EXPECT_EQ(b->Metric("runnel_log_lost_leases_total"), 1);
  // It asks by itself, before it makes anything that somebody could see.
  EXPECT_TRUE(WaitUntilFenced(lost));
  Append(kept, "a");
  EXPECT_TRUE(WaitForText(kept, "a"));
  EXPECT_FALSE(kept->log().fenced());
}

TEST_P(RedisJournalLeaseTest, NoReplicaIsGoneBecauseTheStoreWas) {
  auto a = MakeLeased("aaaa", absl::Milliseconds(600));
  auto b = MakeLeased("bbbb", absl::Milliseconds(600));
  GoneLog of_a(a.get());
  GoneLog of_b(b.get());
  ASSERT_TRUE(WaitUntil([&] { return a->link().count("EXISTS") > 0; }));
  // All leases expire meanwhile, and then both replicas come back.
  server_->Run({"DEL", "rnl:lease:aaaa", "rnl:lease:bbbb"});
  BreakConnections();
  const size_t before = a->link().count("EXISTS");
  ASSERT_TRUE(WaitUntil([&] { return a->link().count("EXISTS") > before + 12; }));
  EXPECT_TRUE(of_a.empty());
  EXPECT_TRUE(of_b.empty());
  EXPECT_TRUE(Exists("rnl:lease:aaaa"));
  EXPECT_TRUE(Exists("rnl:lease:bbbb"));
}

TEST_P(RedisJournalLeaseTest, AFinishedLogOfADeadOwnerIsReadFromItsStream) {
  auto a = MakeReplica("aaaa");
  auto b = MakeReplica("bbbb");
  const auto generation = b->Start();
  Append(generation, "b");
  // It stops right after its last record.
  b->link().Hold("SET");
  testing::End(generation);
  ASSERT_TRUE(WaitUntil([&] { return generation->status() == GenerationStatus::kDone; }));
  const auto loaded = a->Load(generation->id(), Claim::kTakeOver, std::nullopt);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->state, State::kFinished);
  EXPECT_EQ(loaded->log.content, "b");
  EXPECT_EQ(loaded->meta.request, "the request") << "which has what is kept of it";
  EXPECT_NE(loaded->ended_at, absl::InfiniteFuture());
  EXPECT_TRUE(WaitUntil([&] { return !Exists("rnl:own:bbbb"); })) << "it is no orphan any more";
  EXPECT_EQ(a->Load(generation->id())->state, State::kFinished);
}

}  // namespace
}  // namespace runnel::inference
