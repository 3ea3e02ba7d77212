// Random histories of owners, takers and a store that forgets, in the style of the tests of Raft's log: whatever
// happens, a reader gets a beginning of the log of one owner, and everything once that owner has written it again.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "services/inference/generation/event_log.h"
#include "services/inference/journal/record_reader.h"
#include "tests/unit/services/inference/journal/segments.h"

namespace runnel::inference {
namespace {

using Stream = std::vector<std::pair<RecordId, std::string>>;

struct Owner {
  explicit Owner(size_t index) : number(index) {}

  const size_t number;
  EventLog log{Started{"m", absl::UnixEpoch(), 1}, 2, 0, EventLog::Visibility::kOnRelease};
  std::vector<std::string> contents;  // of the deltas
  RecordId last;
  LogPosition taken;
  bool fenced = false;
  bool checked = true;  // it has looked at the store since its connection was made
};

class Model {
 public:
  explicit Model(uint32_t seed) : random_(seed) {
    owners_.push_back(std::make_unique<Owner>(0));
    Write(owners_.back().get());
  }

  void Step() {
    Owner* const owner = owners_[Below(owners_.size())].get();
    switch (Below(10)) {
      case 0:
        return TakeOver();
      case 1:
        return Forget();
      case 2:
        return Check(owner);
      case 3:
        return Lose(owner);
      default:
        Grow(owner);
        if (Below(3) > 0) Write(owner);
    }
  }

  // What anybody reads is a beginning of the log of one owner.
  void CheckReading() {
    RecordReader reader;
    Read(&reader);
    const LogSegment& log = reader.log();
    if (log.last_seq() == 0) return;
    const bool known = std::any_of(owners_.begin(), owners_.end(), [&](const auto& owner) {
      LogSegment all;
      owner->log.ReadSegment({}, SIZE_MAX, &all);
      return all.branches == log.branches && IsBeginning(log, *owner);
    });
    ASSERT_TRUE(known) << "epoch " << reader.epoch() << ": " << log.content;
    // So does a log that is restored from it.
    EventLog restored(*log.started, log.choice_count, 0, EventLog::Visibility::kOnRelease);
    const absl::Status status = restored.Restore(log);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(restored.GetState().last_seq, log.last_seq());
    EXPECT_EQ(restored.GetState().usage, *log.usage);
    EXPECT_EQ(restored.epoch(), reader.epoch());
  }

  // The owner of the highest epoch is not fenced, and writes everything again.
  void CheckHealing() {
    Owner* const owner = owners_.back().get();
    if (owner->fenced) return;
    Check(owner);
    Write(owner);
    if (owner->fenced) return;
    RecordReader reader;
    Read(&reader);
    LogSegment all;
    owner->log.ReadSegment({}, SIZE_MAX, &all);
    EXPECT_EQ(reader.log().last_seq(), all.last_seq());
    EXPECT_TRUE(IsBeginning(reader.log(), *owner));
    ASSERT_EQ(reader.log().ended.size(), all.ended.size());
    for (size_t i = 0; i < all.ended.size(); ++i) {
      EXPECT_EQ(reader.log().ended[i].choice, all.ended[i].choice);
      EXPECT_EQ(reader.log().ended[i].reason, all.ended[i].reason);
      EXPECT_GE(reader.log().ended[i].after_seq, all.ended[i].after_seq) << "it may have been written again later";
    }
    EXPECT_EQ(reader.log().end.has_value(), all.end.has_value());
    EXPECT_EQ(reader.log().usage, all.usage);
  }
  size_t owners() const { return owners_.size(); }

 private:
  size_t Below(size_t bound) { return random_() % bound; }

  static bool IsBeginning(const LogSegment& log, const Owner& owner) {
    if (log.deltas.size() > owner.contents.size()) return false;
    std::string content;
    for (size_t i = 0; i < log.deltas.size(); ++i) content += owner.contents[i];
    return content == log.content;
  }

  void Read(RecordReader* reader) const {
    for (const auto& [id, bytes] : stream_) {
      auto record = DecodeRecord(bytes);
      ASSERT_TRUE(record.ok()) << record.status();
      const absl::Status status = reader->Add(id, *std::move(record));
      ASSERT_TRUE(status.ok()) << status;
    }
  }

  // Every owner appends text of its own.
  void Grow(Owner* owner) {
    const auto content = std::to_string(owner->number) + "." + std::to_string(owner->contents.size()) + " ";
    WakeSet wake;
    const auto choice = static_cast<uint32_t>(Below(2));
    if (Below(40) == 0) {
      owner->log.EndAll(FinishReason::kCancelled, 0, &wake);
    } else if (Below(12) == 0) {
      owner->log.EndChoice(1, FinishReason::kLength, 0, &wake);
    } else if (Below(12) == 0) {
      owner->log.CountReasoning(0, 3);
    } else if (owner->log.AppendDelta(choice, PartPiece::Text(content), 1, 0, &wake) == EventLog::Appended::kYes) {
      owner->contents.push_back(content);
    }
  }

  // The store refuses ids that are not above the last one.
  bool Add(const RecordId& id, const LogSegment& segment) {
    if (!stream_.empty() && stream_.back().first >= id) return false;
    stream_.emplace_back(id, Encode(segment));
    return true;
  }

  void Write(Owner* owner) {
    LogSegment segment;
    if (!owner->checked) Check(owner);
    while (!owner->fenced) {
      const LogPosition to = owner->log.ReadSegment(owner->taken, 1 + Below(60), &segment);
      if (to == owner->taken) return;
      owner->last.n += 1;
      owner->fenced = !Add(owner->last, segment);
      owner->taken = to;
    }
  }

  // What an owner does when its connection has been made again, before it writes: if another one has taken over, it is
  // fenced, else it writes again what the store does not have, or everything. Others may write between this and that.
  void Check(Owner* owner) {
    if (owner->fenced) return;
    RecordReader reader;
    Read(&reader);
    LogSegment all;
    owner->log.ReadSegment({}, SIZE_MAX, &all);
    const RecordId tail = stream_.empty() ? RecordId() : stream_.back().first;
    const bool taken_twice = reader.epoch() == owner->last.epoch && reader.log().branches != all.branches;
    owner->fenced = tail.epoch > owner->last.epoch || (!stream_.empty() && taken_twice);
    if (tail.epoch == owner->last.epoch) owner->last.n = std::max(owner->last.n, tail.n);
    const uint64_t common =
        std::min({CommonSeq(reader.log().branches, all.branches), reader.log().last_seq(), all.last_seq()});
    owner->taken = LogPosition{.seq = Below(2) == 0 ? 0 : common};
    owner->checked = true;
  }

  // Its connection breaks with the next record.
  void Lose(Owner* owner) {
    LogSegment segment;
    owner->taken = owner->log.ReadSegment(owner->taken, 1 + Below(60), &segment);
    owner->last.n += 1;
    owner->checked = false;
  }

  void TakeOver() {
    RecordReader reader;
    Read(&reader);
    if (reader.log().last_seq() == 0) return;
    LogSegment log = reader.TakeLog();
    const uint32_t epoch = stream_.back().first.epoch + 1;
    log.branches.push_back({epoch, log.last_seq(), static_cast<uint32_t>(random_())});
    auto owner = std::make_unique<Owner>(owners_.size());
    ASSERT_TRUE(owner->log.Restore(log).ok());
    std::string_view rest = log.content;
    for (const LoggedDelta& delta : log.deltas) {
      owner->contents.emplace_back(rest.substr(0, delta.length));
      rest.remove_prefix(delta.length);
    }
    LogSegment fence;
    owner->taken = owner->log.ReadSegment({.seq = log.last_seq()}, SIZE_MAX, &fence);
    owner->last = {epoch, 0};
    ASSERT_TRUE(Add(owner->last, fence));
    owners_.push_back(std::move(owner));
  }

  // A restart or a failover: the last records are gone, and all connections are.
  void Forget() {
    const size_t lost = Below(std::min<size_t>(stream_.size(), 6) + 1);
    stream_.resize(stream_.size() - lost);
    for (const auto& owner : owners_) owner->checked = false;
  }

  std::mt19937 random_;
  std::vector<std::unique_ptr<Owner>> owners_;
  Stream stream_;
};

TEST(RecordReaderModel, ReadsABeginningOfOneOwnersLog) {
  size_t owners = 0;
  for (uint32_t seed = 0; seed < 1500 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Model model(seed);
    for (int step = 0; step < 40 && !::testing::Test::HasFailure(); ++step) {
      model.Step();
      model.CheckReading();
    }
    model.CheckHealing();
    owners += model.owners();
  }
  EXPECT_GT(owners, 3000u);
}

}  // namespace
}  // namespace runnel::inference
