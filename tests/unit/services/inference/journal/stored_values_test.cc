// Values, names and rules of the store that need no server.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "services/inference/journal/journal_keys.h"
#include "services/inference/journal/journal_record.h"
#include "services/inference/journal/log_wait.h"
#include "services/inference/journal/record_bytes.h"
#include "services/inference/journal/record_id.h"
#include "services/inference/journal/rendezvous.h"
#include "services/inference/journal/store_commands.h"
#include "services/inference/journal/stored_meta.h"

namespace runnel::inference {
namespace {

constexpr const char* kId = "gen_aaaabbbbccccddddeeeeffffgg";

std::string Encode(const StoredMeta& meta) {
  std::string bytes;
  EncodeMeta(meta, &bytes);
  return bytes;
}

std::string Sealed(std::string bytes) {
  SealRecord(0, &bytes);
  return bytes;
}

StoredMeta Running() {
  return {
      StoredMeta::State::kRunning,
      {.principal = "ann", .request_id = "key", .request_fingerprint = UINT64_MAX, .request = std::string("\0\xFF", 2)},
      "0123abcd"};
}

TEST(StoredMeta, RoundTrip) {
  const auto decoded = DecodeMeta(Encode(Running()));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->state, StoredMeta::State::kRunning);
  EXPECT_EQ(decoded->meta.principal, "ann");
  EXPECT_EQ(decoded->meta.request_id, "key");
  EXPECT_EQ(decoded->meta.request_fingerprint, UINT64_MAX);
  EXPECT_EQ(decoded->meta.request, std::string("\0\xFF", 2));
  EXPECT_EQ(decoded->claim, "0123abcd");
}

TEST(StoredMeta, AfterTheEndOnlyThePrincipalAndTheClaimStay) {
  for (const auto state : {StoredMeta::State::kEnded, StoredMeta::State::kDeleted}) {
    const std::string bytes = Encode(Running().WithState(state));
    EXPECT_LT(bytes.size(), 20u);
    const auto decoded = DecodeMeta(bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(decoded->state, state);
    EXPECT_EQ(decoded->meta.principal, "ann");
    EXPECT_EQ(decoded->meta.request_id, "");
    EXPECT_EQ(decoded->meta.request, "");
    EXPECT_EQ(decoded->claim, "0123abcd");
  }
}

TEST(StoredMeta, RejectsWhatItHasNotWritten) {
  const std::string good = Encode(Running());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(DecodeMeta(good.substr(0, size)).status())) << size;
  }
  for (size_t i = 1; i < good.size(); ++i) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    EXPECT_FALSE(DecodeMeta(damaged).ok()) << i;
  }
  const std::string body = good.substr(0, good.size() - 2);
  EXPECT_TRUE(absl::IsDataLoss(DecodeMeta(Sealed(body + "x")).status())) << "more than was written";
  std::string unknown_state = body;
  unknown_state[1] = 3;
  EXPECT_TRUE(absl::IsDataLoss(DecodeMeta(Sealed(unknown_state)).status()));
  std::string newer = body;
  newer[0] = kRecordVersion + 1;
  EXPECT_TRUE(absl::IsUnimplemented(DecodeMeta(Sealed(newer)).status()));
  StoredMeta long_principal = Running();
  long_principal.meta.principal.assign(129, 'x');
  EXPECT_TRUE(absl::IsDataLoss(DecodeMeta(Encode(long_principal)).status()));
}

TEST(StoredClaim, RoundTripAndHostileValues) {
  const StoredClaim claim{kId, 77};
  const auto decoded = DecodeClaim(EncodeClaim(claim));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, claim);
  const std::string not_an_id = EncodeClaim({"gen_../../etc", 1});
  const std::string more = Sealed(EncodeClaim(claim).substr(0, 10));
  for (const std::string& bad : {std::string(), std::string("\x01"), not_an_id, more, std::string(100, '\xFF')}) {
    EXPECT_FALSE(DecodeClaim(bad).ok()) << bad;
  }
}

TEST(JournalKeys, NameOneGenerationUnderOneHashTag) {
  const JournalKeys keys("rnl");
  EXPECT_EQ(keys.Stream("gen_x"), "rnl:{gen_x}:e");
  EXPECT_EQ(keys.Finished("gen_x"), "rnl:{gen_x}:d");
  EXPECT_EQ(keys.Meta("gen_x"), "rnl:{gen_x}:m");
  EXPECT_EQ(keys.Claim("00ff"), "rnl:i:00ff");
  EXPECT_EQ(keys.Lease("aaaa"), "rnl:lease:aaaa");
  EXPECT_EQ(keys.Running("aaaa"), "rnl:own:aaaa");
  EXPECT_EQ(keys.Replicas(), "rnl:replicas");
  EXPECT_EQ(keys.Format(), "rnl:format");
}

TEST(NextEpoch, IsHigherAndNeverThatOfADeletion) {
  EXPECT_EQ(NextEpoch(0, 0), 0x10000u);
  EXPECT_EQ(NextEpoch(0, 0xFFFF), 0x1FFFFu);
  EXPECT_EQ(NextEpoch(0x1FFFF, 7), 0x20007u);
  EXPECT_EQ(NextEpoch(0xFFFDFFFF, 0xFFFF), 0xFFFEFFFFu);
  EXPECT_EQ(NextEpoch(0xFFFE0000, 0), std::nullopt);
  EXPECT_EQ(NextEpoch(kDeletedEpoch, 0), std::nullopt);
}

TEST(ChooseReplica, AllAgreeAndOnlyTheShareOfTheLostOneMoves) {
  const std::vector<std::string> three = {"aaaa", "bbbb", "cccc"};
  const std::vector<std::string> two = {"cccc", "aaaa"};
  std::set<std::string> chosen;
  for (int i = 0; i < 100; ++i) {
    const std::string id = "gen_" + std::to_string(i);
    const std::string of_three(ChooseReplica(three, id));
    chosen.insert(of_three);
    EXPECT_TRUE(of_three == "bbbb" || ChooseReplica(two, id) == of_three);
    EXPECT_EQ(ChooseReplica({"cccc", "bbbb", "aaaa"}, id), of_three);
  }
  EXPECT_EQ(chosen.size(), 3u);
  EXPECT_EQ(ChooseReplica({}, "gen_x"), "");
}

TEST(LogWait, IsLateAtTheSecondTickAfterTheWait) {
  absl::Duration now = absl::Seconds(100);
  LogWait wait(absl::Milliseconds(100), now);
  const absl::Duration since = now;
  for (int i = 0; i < 5; ++i) {
    wait.Tick(now += absl::Milliseconds(20), since);
    EXPECT_FALSE(wait.late()) << i;
  }
  wait.Tick(now += absl::Milliseconds(20), since);
  EXPECT_FALSE(wait.late()) << "the connection is read once more";
  wait.Tick(now += absl::Milliseconds(20), since);
  EXPECT_TRUE(wait.late());
  wait.Tick(now += absl::Milliseconds(20), now);
  EXPECT_FALSE(wait.late());
  wait.Tick(now += absl::Milliseconds(20), absl::InfiniteDuration());
  EXPECT_EQ(wait.waited(), absl::ZeroDuration());
}

TEST(LogWait, BeginsFromNewAfterTheProcessWasStopped) {
  for (const absl::Duration stopped : {absl::Milliseconds(150), absl::Milliseconds(500), absl::Hours(1)}) {
    absl::Duration now = absl::Seconds(100);
    LogWait wait(absl::Milliseconds(100), now);
    const absl::Duration since = now;
    wait.Tick(now += absl::Milliseconds(20), since);
    wait.Tick(now += stopped, since);
    for (int i = 0; i < 5; ++i) {
      EXPECT_FALSE(wait.late()) << i;
      wait.Tick(now += absl::Milliseconds(20), since);
    }
    EXPECT_FALSE(wait.late());
    wait.Tick(now += absl::Milliseconds(20), since);
    wait.Tick(now += absl::Milliseconds(20), since);
    EXPECT_TRUE(wait.late());
  }
}

TEST(LogWait, AStopThatIsShorterThanAGapIsReadBeforeItIsLate) {
  absl::Duration now = absl::Seconds(100);
  LogWait wait(absl::Milliseconds(50), now);
  const absl::Duration since = now;
  wait.Tick(now += absl::Milliseconds(99), since);
  EXPECT_FALSE(wait.late());
  wait.Tick(now += absl::Milliseconds(10), absl::InfiniteDuration());
  EXPECT_FALSE(wait.late()) << "what arrived meanwhile was an answer";
}

TEST(Milliseconds, IsNeverZero) {
  EXPECT_EQ(Milliseconds(absl::ZeroDuration()), "1");
  EXPECT_EQ(Milliseconds(absl::Hours(24)), "86400000");
}

}  // namespace
}  // namespace runnel::inference
