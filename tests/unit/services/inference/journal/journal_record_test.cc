#include "services/inference/journal/journal_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "services/base/message_limits.h"
#include "services/inference/journal/finished_log.h"
#include "services/inference/journal/record_id.h"
#include "tests/unit/services/inference/journal/segments.h"

namespace runnel::inference {
namespace {

// A record with these items and a valid check.
std::string Sealed(std::string items, char version = kRecordVersion) {
  std::string bytes = version + std::move(items);
  SealRecord(0, &bytes);
  return bytes;
}

TEST(RecordId, IsTheIdOfAStreamEntry) {
  EXPECT_EQ((RecordId{3, 12}).ToString(), "3-12");
  EXPECT_EQ(ParseRecordId("3-12"), (RecordId{3, 12}));
  EXPECT_EQ(ParseRecordId("0-0"), RecordId());
  EXPECT_EQ(ParseRecordId("4294967295-18446744073709551615"), (RecordId{UINT32_MAX, UINT64_MAX}));
  EXPECT_LT((RecordId{1, 99}), (RecordId{2, 0}));
  for (const char* bad : {"", "-", "1", "1-", "-1", "01-1", "1-01", "1-+1", "1-1 ", "1-1-1", "4294967296-1", "a-1",
                          "1-18446744073709551616"}) {
    EXPECT_FALSE(ParseRecordId(bad).has_value()) << bad;
  }
}

TEST(JournalRecord, KeepsEverything) {
  const LogSegment segment = FullSegment();
  const auto decoded = DecodeRecord(Encode(segment));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->branches, segment.branches);
  EXPECT_EQ(decoded->first_seq, 1u);
  EXPECT_EQ(decoded->choice_count, 2u);
  EXPECT_EQ(decoded->started->model, "model");
  EXPECT_EQ(decoded->started->created_at, segment.started->created_at);
  EXPECT_EQ(decoded->started->prompt_tokens, 9u);
  EXPECT_EQ(decoded->started->fingerprint, "print");
  EXPECT_EQ(decoded->content, segment.content);
  ASSERT_EQ(decoded->deltas.size(), segment.deltas.size());
  for (size_t i = 0; i < segment.deltas.size(); ++i) {
    const LoggedDelta& actual = decoded->deltas[i];
    const LoggedDelta& expected = segment.deltas[i];
    EXPECT_EQ(actual.elapsed_us, expected.elapsed_us) << i;
    EXPECT_EQ(actual.choice, expected.choice) << i;
    EXPECT_EQ(actual.part, expected.part) << i;
    EXPECT_EQ(actual.kind, expected.kind) << i;
    EXPECT_EQ(actual.length, expected.length) << i;
    EXPECT_EQ(actual.tokens, expected.tokens) << i;
    EXPECT_EQ(actual.logprobs, expected.logprobs) << i;
    EXPECT_EQ(actual.token_ids, expected.token_ids) << i;
    ASSERT_EQ(actual.call == nullptr, expected.call == nullptr) << i;
    if (expected.call != nullptr) {
      EXPECT_EQ(*actual.call, *expected.call);
    }
  }
  EXPECT_EQ(decoded->ended, segment.ended);
  EXPECT_EQ(decoded->usage, segment.usage);
  EXPECT_TRUE(decoded->cancelled);
  EXPECT_EQ(decoded->end->elapsed_us, 100'000u);
  EXPECT_FALSE(decoded->end->failed.has_value());
}

TEST(JournalRecord, KeepsAFailureOfTheServerBehindTheEngine) {
  LogSegment segment;
  segment.first_seq = 7;
  const ServerError server{429, "type", "code", "param", absl::Milliseconds(1500)};
  segment.end = LogEnd{5, Failed{"request_rejected", "too long", true, server}};
  const auto decoded = DecodeRecord(Encode(segment));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->first_seq, 7u);
  const Failed& failed = *decoded->end->failed;
  EXPECT_EQ(failed.code, "request_rejected");
  EXPECT_EQ(failed.message, "too long");
  EXPECT_TRUE(failed.retryable);
  EXPECT_EQ(failed.server_error->status, 429);
  EXPECT_EQ(failed.server_error->type, "type");
  EXPECT_EQ(failed.server_error->code, "code");
  EXPECT_EQ(failed.server_error->param, "param");
  EXPECT_EQ(failed.server_error->retry_after, absl::Milliseconds(1500));
}

TEST(JournalRecord, StoresFactsWithoutAnEvent) {
  LogSegment segment;
  segment.first_seq = 12;
  segment.ended = {{1, FinishReason::kLength, 11}};
  segment.usage = Usage{3, 4, 0, 0};
  segment.cancelled = true;
  const auto decoded = DecodeRecord(Encode(segment));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->event_count(), 0u);
  EXPECT_EQ(decoded->last_seq(), 11u);
  EXPECT_EQ(decoded->ended, segment.ended);
  EXPECT_EQ(decoded->usage, segment.usage);
  EXPECT_TRUE(decoded->cancelled);
}

TEST(JournalRecord, ADeltaTakesFourBytesMoreThanItsContent) {
  LogSegment segment = StartedSegment();
  const size_t empty = Encode(segment).size();
  for (uint64_t i = 1; i <= 100; ++i) AddDelta("sixteen bytes!!!", &segment, {.elapsed_us = i * 33'000, .tokens = 1});
  EXPECT_LE(Encode(segment).size() - empty, 100 * 20 + 4u);
}

TEST(JournalRecord, RejectsEveryTruncationAndEveryChangedBit) {
  const std::string bytes = Encode(FullSegment());
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(DecodeRecord(bytes.substr(0, size)).ok()) << size;
  EXPECT_FALSE(DecodeRecord(bytes + '\0').ok());
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string changed = bytes;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ 1 << bit % 8);
    EXPECT_FALSE(DecodeRecord(changed).ok()) << bit;
  }
}

TEST(JournalRecord, ReportsARecordOfANewerRelease) {
  const absl::Status status = DecodeRecord(Sealed("\x01", kRecordVersion + 1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("has version 2, this release reads up to 1"));
}

TEST(JournalRecord, RejectsWhatNoReleaseWrites) {
  const std::string started("\x02\x01\x01m\x00\x00\x00", 7);
  ASSERT_TRUE(DecodeRecord(Sealed("\x01" + started)).ok());
  const std::string delta("\x01\x00\x00\x00\x01\x00x",
                          7);  // form 1 without fields: choice, part, kind, length, elapsed
  ASSERT_TRUE(DecodeRecord(Sealed("\x02" + delta)).ok());
  const std::string zero(1, '\0');
  const struct {
    const char* what;
    std::string items;
  } rows[] = {
      {"nothing", ""},
      {"seq 0", zero + delta},
      {"seq above all", std::string(9, '\xFF') + "\x01"},
      {"a number of eleven bytes", std::string(10, '\x80') + "\x01"},
      {"a number with a needless byte", std::string("\x82\x00", 2) + delta},
      {"a delta where started belongs", "\x01" + delta},
      {"started in the middle", "\x02" + started},
      {"started twice", "\x01" + started + started},
      {"no choices", "\x01" + std::string("\x02\x00\x01m\x00\x00\x00", 7)},
      {"an end where started belongs", "\x01" + std::string("\x0E\x00", 2)},
      {"a plain delta first", "\x02" + std::string("\x04\x00x", 3)},
      {"the part of no delta", "\x02" + std::string("\x05\x01\x00x", 4)},
      {"form 3", "\x02\x03"},
      {"an unknown item", "\x02\xFE"},
      {"an unknown field", "\x02" + std::string("\x81\x00\x00\x00\x01\x00x", 7)},
      {"an unknown kind", "\x02" + std::string("\x01\x00\x00\x04\x01\x00x", 7)},
      {"a part above the limit", "\x02" + std::string("\x01\x00\x80\x08\x00\x01\x00x", 8)},
      {"content that is too short", "\x02" + std::string("\x01\x00\x00\x00\x02\x00x", 7)},
      {"content that is not UTF-8", "\x02" + std::string("\x01\x00\x00\x00\x01\x00\xE2", 7)},
      {"a call that opens text", "\x02" + std::string("\x09\x00\x00\x00\x01i\x01n\x01\x00x", 11)},
      {"a call without an id", "\x02" + std::string("\x09\x00\x00\x02\x00\x01n\x01\x00x", 10)},
      {"more log-probabilities than bytes", "\x02" + std::string("\x11\x00\x00\x00\xFF\x7F\x01\x00x", 9)},
      {"no log-probabilities", "\x02" + std::string("\x11\x00\x00\x00\x00\x01\x00x", 8)},
      {"no token ids", "\x02" + std::string("\x21\x00\x00\x00\x00\x01\x00x", 8)},
      {"a choice that ends twice", "\x02" + std::string("\x0A\x00\x01\x0A\x00\x01", 6)},
      {"a choice that ends for no reason", "\x02" + std::string("\x0A\x00\x00", 3)},
      {"an unknown reason", "\x02" + std::string("\x0A\x00\x06", 3)},
      {"an event after the end", "\x02" + std::string("\x0E\x00", 2) + delta},
      {"usage twice", "\x02" + std::string("\x16\x00\x00\x00\x00\x16\x00\x00\x00\x00", 10)},
      {"cancelled twice", "\x02\x1A\x1A"},
      {"a takeover after an event", "\x02" + delta + std::string("\x06\x01\x01\x00", 4)},
      {"takeovers out of order", "\x02" + std::string("\x06\x02\x01\x00\x06\x02\x01\x00", 8)},
      {"a takeover of epoch 0", "\x02" + std::string("\x06\x00\x01\x00", 4)},
      {"unknown bits of a failure", "\x02" + std::string("\x12\x00\x00\x00\x04", 5)},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(DecodeRecord(Sealed(row.items)).status().code(), absl::StatusCode::kDataLoss) << row.what;
  }
  EXPECT_EQ(DecodeRecord(Sealed("\x02", 0)).status().code(), absl::StatusCode::kDataLoss);
}

TEST(JournalRecord, RejectsRecordsAboveTheLimits) {
  LogSegment segment = StartedSegment();
  for (int i = 0; i < 10; ++i) AddDelta("", &segment);
  const std::string bytes = Encode(segment);
  EXPECT_TRUE(DecodeRecord(bytes, {.max_bytes = bytes.size(), .max_events = 10}).ok());
  for (const RecordLimits& limits : {RecordLimits{.max_bytes = bytes.size() - 1}, RecordLimits{.max_events = 8}}) {
    EXPECT_EQ(DecodeRecord(bytes, limits).status().code(), absl::StatusCode::kResourceExhausted);
  }
  LogSegment large = StartedSegment();
  AddDelta(std::string(base::kMaxEventBytes, 'x'), &large);
  EXPECT_TRUE(DecodeRecord(Encode(large)).ok());
  large.content += 'x';
  ++large.deltas[0].length;
  EXPECT_FALSE(DecodeRecord(Encode(large)).ok());
}

TEST(FinishedLog, KeepsWhatAnyReplicaNeedsToServeIt) {
  FinishedLog finished{"ann", "{\"a\":1}", std::string("\x0A\xFF\x00", 3), absl::FromUnixMillis(1'800'000'000'001), {}};
  finished.log = FullSegment();
  std::string bytes;
  EncodeFinished(finished, &bytes);
  const auto decoded = DecodeFinished(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->principal, "ann");
  EXPECT_EQ(decoded->annotation, finished.annotation);
  EXPECT_EQ(decoded->kept_input, finished.kept_input);
  EXPECT_EQ(decoded->ended_at, finished.ended_at);
  EXPECT_EQ(Encode(decoded->log), Encode(finished.log));
  for (size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(DecodeFinished(bytes.substr(0, size)).ok()) << size;
}

TEST(FinishedLog, RejectsALogWithoutItsEnd) {
  FinishedLog finished;
  finished.log = StartedSegment();
  std::string bytes;
  EncodeFinished(finished, &bytes);
  EXPECT_EQ(DecodeFinished(bytes).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace runnel::inference
