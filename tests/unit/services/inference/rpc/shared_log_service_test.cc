// The service with a shared log: epochs, gaps, moved readers, and the question of one replica to another.
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "services/base/listen_socket.h"
#include "services/inference/rpc/grpc_listener.h"
#include "services/inference/rpc/grpc_owner_probe.h"
#include "tests/testing/fake_journal.h"
#include "tests/testing/generation_calls.h"
#include "tests/unit/services/inference/journal/fake_replicas.h"
#include "tests/unit/services/inference/rpc/service_harness.h"

namespace runnel::inference {
namespace {

using testing::FakeJournal;
using testing::FakeLogStore;

// Owners count as gone.
class DeadOwners final : public OwnerProbe {
 public:
  void Ask(Question, AnswerCallback done) override { done(Answer::kRefused); }
  void Stop() override {}
};

class SharedLogServiceTest : public ::testing::Test {
 protected:
  struct Replica {
    Replica(FakeLogStore* store, OwnerProbe* probe, const std::string& prefix)
        : journal(std::make_shared<FakeJournal>(store, FakeJournal::Options{.prefix = prefix})),
          harness(&engine, {}, OptionsWith(probe)) {}

    GenerationManager::Options OptionsWith(OwnerProbe* probe) {
      GenerationManager::Options options;
      options.journal = journal.get();
      options.probe = probe;
      options.on_replica_gone = [this](const std::string& gone) { harness.live.AnnounceGone(gone); };
      return options;
    }
    std::shared_ptr<Generation> Find(const std::string& id) {
      auto found = testing::FindNow(&harness.manager, id, "");
      EXPECT_TRUE(found.ok()) << found.status();
      return *found;
    }

    std::shared_ptr<FakeJournal> journal;
    ManualEngine engine;
    ServiceHarness harness;
  };

  // Starts a generation on `a_` with one delta for each character. It is kept without readers.
  std::string Start(const std::string& text) {
    GenerationRequest request;
    request.model = "manual";
    request.prompt = "hello";
    request.detach_timeout = absl::InfiniteDuration();
    auto started = testing::StartNow(&a_.harness.manager, request, 1);
    EXPECT_TRUE(started.ok()) << started.status();
    for (const char c : text) FakeReplicas::Append(started->generation, std::string(1, c));
    return started->generation->id();
  }
  // What a reader of a Link gets.
  struct Reading {
    std::vector<v1::LinkReply> replies;
    std::vector<v1::GenerationEvent> events;
    std::string TextOf() const {
      std::string text;
      for (const auto& event : events) text += event.delta().text();
      return text;
    }
    const v1::LinkAttached& attached() const { return replies.at(0).attached(); }
  };
  static void ReadUntil(LinkClient* link, Reading* reading, const std::function<bool()>& done) {
    link->ReadUntil(
        done, [&](const v1::LinkReply& reply) { reading->replies.push_back(reply); },
        [&](const v1::LinkEvent& event) { reading->events.push_back(event.event()); });
  }
  static void Attach(LinkClient* link, const std::string& id, uint64_t after, uint32_t epoch,
                     v1::GapPolicy policy = v1::GAP_POLICY_SIGNAL) {
    v1::LinkRequest command;
    command.mutable_attach()->set_attachment(1);
    command.mutable_attach()->set_generation_id(id);
    command.mutable_attach()->set_after_seq(after);
    command.mutable_attach()->set_after_epoch(epoch);
    command.mutable_attach()->set_gap_policy(policy);
    EXPECT_TRUE(link->stream->Write(command));
  }

  FakeLogStore store_;
  DeadOwners dead_;
  Replica a_{&store_, &dead_, "aaaa"};
  Replica b_{&store_, &dead_, "bbbb"};
};

TEST_F(SharedLogServiceTest, HelloSaysThatTheLogIsShared) {
  LinkClient link(a_.harness.stub.get());
  EXPECT_TRUE(link.hello.shared_log());
  EXPECT_EQ(link.hello.id_prefix(), "aaaa");
  ManualEngine engine;
  ServiceHarness memory(&engine);
  LinkClient other(memory.stub.get());
  EXPECT_FALSE(other.hello.shared_log());
}

TEST_F(SharedLogServiceTest, EpochZeroIsNeverWritten) {
  const std::string id = Start("ab");
  LinkClient link(a_.harness.stub.get());
  Attach(&link, id, 0, 0);
  Reading reading;
  ReadUntil(&link, &reading, [&] { return reading.TextOf() == "ab"; });
  EXPECT_EQ(reading.attached().epoch(), 0u);
  for (const auto& event : reading.events) EXPECT_EQ(event.epoch(), 0u);
}

TEST_F(SharedLogServiceTest, ATakeoverIsInvisibleButForItsEpoch) {
  const std::string id = Start("ab");
  LinkClient link(b_.harness.stub.get());
  Attach(&link, id, 2, 0);
  Reading reading;
  ReadUntil(&link, &reading, [&] { return reading.TextOf() == "b"; });
  EXPECT_EQ(reading.attached().epoch(), 1u);
  EXPECT_EQ(reading.attached().last_seq(), 3u);
  EXPECT_EQ(reading.events[0].seq(), 3u);
  EXPECT_EQ(reading.events[0].epoch(), 1u) << "that of the log, not of its writer";
  FakeReplicas::Append(b_.Find(id), "c");
  FakeReplicas::End(b_.Find(id));
  ReadUntil(&link, &reading, [&] { return reading.events.back().has_done(); });
  EXPECT_EQ(reading.TextOf(), "bc");
  EXPECT_EQ(reading.events.back().epoch(), 1u);

  grpc::ClientContext context;
  v1::GetGenerationRequest get;
  get.set_generation_id(id);
  v1::GetGenerationResponse got;
  ASSERT_TRUE(b_.harness.stub->GetGeneration(&context, get, &got).ok());
  EXPECT_EQ(got.generation().epoch(), 1u);
  grpc::ClientContext cancel_context;
  v1::CancelGenerationRequest cancel;
  cancel.set_generation_id(id);
  v1::CancelGenerationResponse cancelled;
  ASSERT_TRUE(b_.harness.stub->CancelGeneration(&cancel_context, cancel, &cancelled).ok());
  EXPECT_EQ(cancelled.epoch(), 1u);
}

TEST_F(SharedLogServiceTest, ACursorBehindTheEndOfItsEpochGetsAGap) {
  const std::string id = Start("ab");  // up to seq 3
  FakeReplicas::Append(b_.Find(id), "cd");
  FakeReplicas::Append(b_.Find(id), "ef");
  const struct {
    uint64_t after;
    uint32_t epoch;
    bool gap;
  } rows[] = {
      {3, 0, false},  // where the takeover began
      {4, 0, true},   // of a tail that was lost, although the log has a 4 again
      {9, 0, true},   // the same, and behind the end
      {4, 1, false},  // of this epoch
      {5, 1, false},  // its end
      {2, 9, true},   // an epoch that the log does not know
      {1, 9, false},  // `started` is the same in each
      {0, 9, false},
  };
  for (const auto& row : rows) {
    LinkClient link(b_.harness.stub.get());
    Attach(&link, id, row.after, row.epoch);
    Reading reading;
    const bool at_end = row.after == 5;
    ReadUntil(&link, &reading, [&] { return !reading.replies.empty() && (at_end || !reading.events.empty()); });
    const bool gap = !reading.events.empty() && reading.events[0].has_gap();
    EXPECT_EQ(gap, row.gap) << row.after << "." << row.epoch;
    if (!gap || !row.gap) continue;
    EXPECT_EQ(reading.events[0].gap().reason(), v1::GAP_REASON_TAIL_LOST);
    EXPECT_EQ(reading.events[0].gap().snapshot(0).text(), "abcdef");
    EXPECT_EQ(reading.events[0].seq(), 5u);
    EXPECT_EQ(reading.events[0].epoch(), 1u);
    EXPECT_EQ(reading.attached().parts_size(), 0);
    // And as an error.
    LinkClient strict(b_.harness.stub.get());
    Attach(&strict, id, row.after, row.epoch, v1::GAP_POLICY_FAIL);
    Reading rejected;
    ReadUntil(&strict, &rejected, [&] { return !rejected.replies.empty(); });
    EXPECT_EQ(rejected.replies[0].rejected().code(), static_cast<int>(absl::StatusCode::kOutOfRange));
  }
}

TEST_F(SharedLogServiceTest, AGapFollowsTheEndOfALogToo) {
  const std::string id = Start("ab");
  FakeReplicas::Append(b_.Find(id), "c");
  FakeReplicas::End(b_.Find(id));  // seq 5
  LinkClient link(b_.harness.stub.get());
  // The last seq of the log, but of another one.
  Attach(&link, id, 5, 0);
  Reading reading;
  ReadUntil(&link, &reading, [&] { return !reading.events.empty() && reading.events.back().has_done(); });
  EXPECT_TRUE(reading.events[0].has_gap());
  EXPECT_EQ(reading.events[0].gap().snapshot(0).text(), "abc");
}

TEST_F(SharedLogServiceTest, StreamsHaveEpochsAndGapsToo) {
  const std::string id = Start("ab");
  FakeReplicas::Append(b_.Find(id), "c");
  FakeReplicas::End(b_.Find(id));
  for (const uint32_t epoch : {0u, 1u}) {
    grpc::ClientContext context;
    v1::ResumeGenerationRequest request;
    request.set_generation_id(id);
    request.set_after_seq(4);
    request.set_after_epoch(epoch);
    const auto reader = b_.harness.stub->ResumeGeneration(&context, request);
    v1::ResumeGenerationResponse response;
    ASSERT_TRUE(reader->Read(&response));
    EXPECT_EQ(response.event().epoch(), 1u);
    EXPECT_EQ(response.event().has_gap(), epoch == 0);
    if (epoch == 0) {
      EXPECT_EQ(response.event().gap().reason(), v1::GAP_REASON_TAIL_LOST);
      EXPECT_EQ(response.event().gap().snapshot(0).text(), "abc");
      ASSERT_TRUE(reader->Read(&response));
    }
    EXPECT_TRUE(response.event().has_done());
    EXPECT_FALSE(reader->Read(&response));
    EXPECT_TRUE(reader->Finish().ok());
    grpc::ClientContext strict_context;
    request.set_gap_policy(v1::GAP_POLICY_FAIL);
    const auto strict = b_.harness.stub->ResumeGeneration(&strict_context, request);
    EXPECT_EQ(strict->Read(&response), epoch == 1);
    while (strict->Read(&response)) {
    }
    EXPECT_EQ(strict->Finish().error_code() == grpc::StatusCode::OUT_OF_RANGE, epoch == 0);
  }
}

TEST_F(SharedLogServiceTest, AFencedGenerationMovesItsReadersBehindWhatTheySaw) {
  const std::string id = Start("ab");
  LinkClient link(a_.harness.stub.get());
  Attach(&link, id, 0, 0);
  grpc::ClientContext context;
  v1::ResumeGenerationRequest request;
  request.set_generation_id(id);
  const auto stream = a_.harness.stub->ResumeGeneration(&context, request);
  Reading reading;
  ReadUntil(&link, &reading, [&] { return reading.TextOf() == "ab"; });
  // A call that comes only after the fence would take the generation back instead of being moved.
  v1::ResumeGenerationResponse response;
  std::string text;
  while (text != "ab" && stream->Read(&response)) text += response.event().delta().text();
  const auto zombie = a_.Find(id);
  ASSERT_EQ(b_.Find(id)->epoch(), 1u);
  FakeReplicas::Append(zombie, "X");
  ReadUntil(&link, &reading, [&] { return reading.replies.back().has_moved(); });
  EXPECT_EQ(reading.replies.back().attachment(), 1u);
  EXPECT_EQ(reading.TextOf(), "ab");
  while (stream->Read(&response)) text += response.event().delta().text();
  EXPECT_EQ(text, "ab");
  const absl::Status status = base::FromGrpcStatus(stream->Finish());
  EXPECT_EQ(base::DetailOf(status).reason, "OWNED_ELSEWHERE") << status;
  // The number is free again. Here nobody answers for the other replica, so it is taken back.
  Attach(&link, id, 3, 0);
  ReadUntil(&link, &reading, [&] { return reading.replies.back().has_attached(); });
  EXPECT_EQ(reading.replies.back().attached().epoch(), 2u);
}

TEST_F(SharedLogServiceTest, GonePrefixesReachEveryLink) {
  LinkClient first(b_.harness.stub.get());
  LinkClient second(b_.harness.stub.get());
  b_.journal->ReportGone({"aaaa", {}});
  b_.journal->ReportGone({"dddd", {}});
  for (LinkClient* link : {&first, &second}) {
    std::vector<std::string> gone;
    v1::LinkResponse response;
    while (gone.size() < 2 && link->stream->Read(&response)) {
      gone.insert(gone.end(), response.gone_prefixes().begin(), response.gone_prefixes().end());
    }
    EXPECT_EQ(gone, (std::vector<std::string>{"aaaa", "dddd"}));
  }
}

class OwnerProbeTest : public SharedLogServiceTest {
 protected:
  static OwnerProbe::Answer Ask(GrpcOwnerProbe* probe, const std::string& address, const std::string& id,
                                const std::string& principal = "") {
    std::promise<OwnerProbe::Answer> answer;
    probe->Ask({address, id, principal}, [&](OwnerProbe::Answer each) { answer.set_value(each); });
    return answer.get_future().get();
  }
};

TEST_F(OwnerProbeTest, TellsApartWhatARefusedConnectionAndSilenceSay) {
  const std::string id = Start("ab");
  LiveCalls live;
  InferenceService service(&a_.harness.manager, &live, {});
  base::Metrics metrics;
  auto listener = GrpcListener::Create({"127.0.0.1:0", false, {}}, &service, &metrics);
  ASSERT_TRUE(listener.ok()) << listener.status();
  const std::string address = "127.0.0.1:" + std::to_string((*listener)->port());
  GrpcOwnerProbe probe({.timeout = absl::Seconds(10)});
  EXPECT_EQ(Ask(&probe, address, id), OwnerProbe::Answer::kHas);
  EXPECT_EQ(Ask(&probe, address, id, "bob"), OwnerProbe::Answer::kHasNot);
  // Of another replica: it does not look into the store, or it would take it.
  const int loads = a_.journal->loads();
  EXPECT_EQ(Ask(&probe, address, "gen_bbbbaaaaaaaaaaaaaaaaaaaaaa"), OwnerProbe::Answer::kHasNot);
  EXPECT_EQ(a_.journal->loads(), loads);
  listener->reset();
  EXPECT_EQ(Ask(&probe, address, id), OwnerProbe::Answer::kRefused);
  // A process that is stopped accepts connections and says nothing.
  const auto silent = base::ListenOn("127.0.0.1:0", 5);
  ASSERT_TRUE(silent.ok());
  GrpcOwnerProbe impatient({.timeout = absl::Milliseconds(50), .max_channels = 2});
  EXPECT_EQ(Ask(&impatient, "127.0.0.1:" + std::to_string(silent->port), id), OwnerProbe::Answer::kSilent);
  EXPECT_EQ(Ask(&impatient, "no address", id), OwnerProbe::Answer::kSilent);
  Ask(&impatient, address, id);
  EXPECT_EQ(impatient.channels(), 2u);
}

TEST_F(OwnerProbeTest, StopEndsItsQuestions) {
  const auto silent = base::ListenOn("127.0.0.1:0", 5);
  ASSERT_TRUE(silent.ok());
  GrpcOwnerProbe probe({.timeout = absl::Hours(1)});
  std::promise<OwnerProbe::Answer> answer;
  probe.Ask({"127.0.0.1:" + std::to_string(silent->port), "gen_x", ""},
            [&](OwnerProbe::Answer each) { answer.set_value(each); });
  probe.Stop();
  EXPECT_EQ(answer.get_future().get(), OwnerProbe::Answer::kSilent);
  EXPECT_EQ(Ask(&probe, "127.0.0.1:1", "gen_x"), OwnerProbe::Answer::kSilent);
}

}  // namespace
}  // namespace runnel::inference
