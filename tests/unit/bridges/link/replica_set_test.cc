#include "bridges/link/replica_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "bridges/link/grpc_stub.h"
#include "services/base/mutex.h"
#include "tests/testing/wait.h"

namespace runnel::bridge {
namespace {

using ::testing::ElementsAre;
using testing::WaitUntil;

// A name service whose results a test sets, and the state that a ReplicaSet derives from them.
class FakeDns {
 public:
  ReplicaSet::Resolve Resolver() {
    return [this](const std::string& host, int port) -> absl::StatusOr<std::vector<std::string>> {
      base::MutexLock lock(&mu_);
      ++queries_;
      if (!result_.ok()) return result_.status();
      std::vector<std::string> addresses;
      for (const std::string& ip : *result_) addresses.push_back(ip + ":" + std::to_string(port) + "#" + host);
      return addresses;
    };
  }
  void SetResult(absl::StatusOr<std::vector<std::string>> result) {
    base::MutexLock lock(&mu_);
    result_ = std::move(result);
  }
  int queries() const {
    base::MutexLock lock(&mu_);
    return queries_;
  }

  void Take(const ReplicaSet::State& state) {
    base::MutexLock lock(&mu_);
    state_ = state;
  }
  ReplicaSet::State state() const {
    base::MutexLock lock(&mu_);
    return state_;
  }
  std::vector<std::string> addresses() const {
    std::vector<std::string> result;
    for (const auto& stub : state().replicas) result.push_back(stub->address);
    return result;
  }

 private:
  mutable base::Mutex mu_;
  absl::StatusOr<std::vector<std::string>> result_ GUARDED_BY(mu_);
  ReplicaSet::State state_ GUARDED_BY(mu_);
  int queries_ GUARDED_BY(mu_) = 0;
};

TEST(ReplicaSet, RefusesMalformedTargets) {
  for (const char* bad : {"",
                          ",",
                          "a:1,",
                          "dns:///",
                          "dns:///name",
                          "dns:///name:x",
                          "dns:///name:70000",
                          "name",
                          "a:1,name",
                          "name:",
                          ":50051",
                          "name:0",
                          "http://name:50051",
                          "http://name",
                          "name:50051/",
                          "a/b:1",
                          "dns://name:50051",
                          "dns:///a/b:1",
                          "::1:50051",
                          "unix:/socket"}) {
    const absl::Status status = ReplicaSet::Create({.targets = bad}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(status.message().find("expected HOST:PORT or dns:///NAME:PORT"), absl::string_view::npos) << status;
  }
  for (const char* good : {"name:50051", "10.0.0.1:1,[::1]:2", "dns:///name:50051", "dns:///[::1]:1"}) {
    EXPECT_TRUE(ReplicaSet::Create({.targets = good}).ok()) << good;
  }
}

TEST(ReplicaSet, UsesFixedAddressesWithoutDns) {
  FakeDns dns;
  const auto set = *ReplicaSet::Create({.targets = "b:2,a:1", .resolve = dns.Resolver()});
  set->Start([&](const ReplicaSet::State& state) { dns.Take(state); });
  EXPECT_THAT(dns.addresses(), ElementsAre("a:1", "b:2"));
  EXPECT_EQ(set->Refresh(), 0u);
  EXPECT_EQ(dns.queries(), 0);
}

TEST(ReplicaSet, FollowsDns) {
  FakeDns dns;
  dns.SetResult(std::vector<std::string>{"10.0.0.1", "10.0.0.2"});
  const auto set =
      *ReplicaSet::Create({.targets = "dns:///pods:5", .interval = absl::Milliseconds(1), .resolve = dns.Resolver()});
  set->Start([&](const ReplicaSet::State& state) { dns.Take(state); });
  ASSERT_TRUE(WaitUntil([&] { return dns.addresses().size() == 2; }));
  EXPECT_THAT(dns.addresses(), ElementsAre("10.0.0.1:5#pods", "10.0.0.2:5#pods"));
  const auto stays = dns.state().replicas[1];
  dns.SetResult(std::vector<std::string>{"10.0.0.2", "10.0.0.3"});
  ASSERT_TRUE(WaitUntil([&] { return dns.addresses().back() == "10.0.0.3:5#pods"; }));
  EXPECT_EQ(dns.state().replicas[0], stays);
  // A failure of DNS does not change the replicas.
  dns.SetResult(absl::UnavailableError("down"));
  const uint64_t round = dns.state().round;
  ASSERT_TRUE(WaitUntil([&] { return dns.state().round > round + 2; }));
  EXPECT_EQ(dns.addresses().size(), 2u);
  EXPECT_FALSE(dns.state().complete);
  set->Stop();
}

TEST(ReplicaSet, TreatsAMissingNameAsNoReplicasOnlyIfItWasResolvedBefore) {
  FakeDns dns;
  dns.SetResult(absl::NotFoundError("no such name"));
  const auto set =
      *ReplicaSet::Create({.targets = "dns:///pods:5", .interval = absl::Milliseconds(1), .resolve = dns.Resolver()});
  set->Start([&](const ReplicaSet::State& state) { dns.Take(state); });
  ASSERT_TRUE(WaitUntil([&] { return dns.state().round > 1; }));
  EXPECT_FALSE(dns.state().complete);
  dns.SetResult(std::vector<std::string>{"10.0.0.1"});
  ASSERT_TRUE(WaitUntil([&] { return dns.addresses().size() == 1; }));
  EXPECT_TRUE(dns.state().complete);
  dns.SetResult(absl::NotFoundError("no such name"));
  ASSERT_TRUE(WaitUntil([&] { return dns.addresses().empty(); }));
  EXPECT_TRUE(dns.state().complete);
  set->Stop();
}

TEST(ReplicaSet, ResolvesAgainOnRefresh) {
  FakeDns dns;
  dns.SetResult(std::vector<std::string>{"10.0.0.1"});
  const auto set =
      *ReplicaSet::Create({.targets = "dns:///pods:5", .interval = absl::Hours(1), .resolve = dns.Resolver()});
  set->Start([&](const ReplicaSet::State& state) { dns.Take(state); });
  ASSERT_TRUE(WaitUntil([&] { return dns.state().round == 1; }));
  dns.SetResult(std::vector<std::string>{"10.0.0.9"});
  const uint64_t round = set->Refresh();
  EXPECT_GE(round, 2u);
  ASSERT_TRUE(WaitUntil([&] { return dns.state().round >= round; }));
  EXPECT_THAT(dns.addresses(), ElementsAre("10.0.0.9:5#pods"));
  set->Stop();
}

TEST(ReplicaSet, ResolvesWithTheSystemResolver) {
  const auto addresses = ReplicaSet::ResolveByDns("127.0.0.1", 50051);
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, ElementsAre("127.0.0.1:50051"));
  EXPECT_FALSE(ReplicaSet::ResolveByDns("no.such.name.invalid", 1).ok());
}

}  // namespace
}  // namespace runnel::bridge
