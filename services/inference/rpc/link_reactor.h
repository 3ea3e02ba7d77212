#pragma once

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "runnel/v1/inference.pb.h"
#include "services/base/arena_message.h"
#include "services/base/message_limits.h"
#include "services/base/mutex.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/wake_set.h"
#include "services/inference/rpc/live_calls.h"
#include "services/inference/rpc/proto_convert.h"

namespace runnel::inference {

struct LinkOptions {
  std::string replica;
  uint32_t max_attachments = 20'000;
  size_t max_batch_bytes = 256 << 10;
  // Of one attachment in one batch, so that a replay of a long log does not hold up the others; and of a gap's
  // snapshot.
  size_t max_attachment_bytes = 16 << 10;
  // Commands not answered, or answered and not yet written; beyond, no more commands are read.
  size_t max_pending_replies = 4096;
  // The largest message that the service takes. Bridges are told.
  size_t max_request_bytes = base::kGrpcDefaultMessageBytes;
  RequestDefaults defaults;
};

// One Link: the cursors of a bridge's attachments and the one write in flight. Nothing is queued but replies: when the
// write completes, the next batch is filled from the logs of the attachments that have news.
//
// Owned by LiveCalls from Start until OnDone. Locks: a log's before the reactor's, so the reactor reads logs without
// its own.
class LinkReactor final : public grpc::ServerBidiReactor<v1::LinkRequest, v1::LinkResponse>,
                          public Flushable,
                          public LiveCall,
                          public std::enable_shared_from_this<LinkReactor> {
 public:
  // All must outlive the reactor.
  static LinkReactor* Start(GenerationManager* manager, const LinkOptions* options, LiveCalls* live);
  ~LinkReactor() override;

  void Flush() override { MaybeWrite(); }
  void AnnounceGoingAway() override EXCLUDES(mu_);
  void AnnounceStopped() override EXCLUDES(mu_);

  void OnReadDone(bool ok) override EXCLUDES(mu_);
  void OnWriteDone(bool ok) override EXCLUDES(mu_);
  void OnCancel() override EXCLUDES(mu_);
  void OnDone() override EXCLUDES(mu_);

 private:
  class Attachment;

  LinkReactor(GenerationManager* manager, const LinkOptions* options, LiveCalls* live);

  void HandleCommand() EXCLUDES(mu_);
  void HandleGenerate(const v1::LinkGenerate& command) EXCLUDES(mu_);
  void HandleAttach(const v1::LinkAttach& command) EXCLUDES(mu_);
  void HandleDetach(const v1::LinkDetach& command) EXCLUDES(mu_);
  void HandleAsk(uint32_t number) EXCLUDES(mu_);
  void HandleClaim(const v1::LinkClaim& command) EXCLUDES(mu_);
  // Of a command: where an attachment begins and how it reads.
  struct Reading {
    uint64_t after = 0;
    v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL;
    bool unmerged = false;
  };
  // Takes `number` for a generate or attach, whose answer may come later and on another thread. Returns its ticket, or
  // 0 if `number` must not be taken; then the Link is ending.
  uint64_t Take(uint32_t number) EXCLUDES(mu_);
  // The answers to that. Each does nothing but let go of what it was given if the Link has ended or the command was
  // overtaken by its detach: then the ticket is not the number's any more.
  void Attach(uint32_t number, uint64_t ticket, GenerationManager::Started started, const Reading& reading)
      EXCLUDES(mu_);
  void Reject(uint32_t number, uint64_t ticket, const absl::Status& status) EXCLUDES(mu_);
  // True, once, for the ticket that the number has.
  bool TakeTicketLocked(uint32_t number, uint64_t ticket) REQUIRES(mu_);
  void Reply(v1::LinkReply reply) EXCLUDES(mu_);

  std::shared_ptr<Flushable> MarkNews(Attachment* attachment) EXCLUDES(mu_);
  void MaybeWrite() EXCLUDES(mu_);
  // Takes what the next batch is made of, and adds to `bytes` what is in it already. False if there is nothing to
  // write, or a write is in flight.
  bool TakeRound(std::vector<std::shared_ptr<Attachment>>* round, size_t* bytes) EXCLUDES(mu_);
  // Moves replies into the batch, and the attachments that they open to the news. Returns the bytes they take.
  size_t TakeRepliesLocked() REQUIRES(mu_);
  // What was filled is the next writer's, which may be another thread, from here on. gRPC orders the two anyway, but by
  // locks that ThreadSanitizer does not see.
  void HandOver() EXCLUDES(mu_);
  // `bytes`: of the replies in it.
  void FillBatch(std::vector<std::shared_ptr<Attachment>> round, size_t bytes) EXCLUDES(mu_);
  // Moves the news of one attachment into the batch; returns the bytes it took.
  size_t FillFrom(const std::shared_ptr<Attachment>& attachment, size_t max_bytes) EXCLUDES(mu_);
  void EndAttachment(const std::shared_ptr<Attachment>& attachment) EXCLUDES(mu_);
  void BeginEnd(grpc::Status status) EXCLUDES(mu_);
  void FinishIfIdleLocked() REQUIRES(mu_);
  void DropAttachments() EXCLUDES(mu_);

  GenerationManager* const manager_;
  const LinkOptions* const options_;
  LiveCalls* const live_;
  const uint64_t claimant_;

  // Of the one read, and of the one write and who fills it.
  v1::LinkRequest request_;
  base::ArenaMessage<v1::LinkResponse> response_;
  std::vector<Event> scratch_;

  base::Mutex mu_;
  std::vector<std::shared_ptr<Attachment>> slots_ GUARDED_BY(mu_);  // by number
  struct Number {
    uint64_t ticket = 0;  // of the generate or attach that is not answered yet; 0: none
    // Its last command was answered by `detached` already, so a detach that crosses it is not answered again.
    bool told_detached = false;
  };
  std::vector<Number> numbers_ GUARDED_BY(mu_);  // as many as slots_
  uint64_t last_ticket_ GUARDED_BY(mu_) = 0;
  size_t opening_ GUARDED_BY(mu_) = 0;                             // numbers with a ticket
  std::vector<std::shared_ptr<Attachment>> news_ GUARDED_BY(mu_);  // in the order in which they are served
  struct PendingReply {
    v1::LinkReply reply;
    // Of an `attached`: its events begin with the batch that has the reply. Destroyed without the lock.
    std::shared_ptr<Attachment> attachment;
  };
  std::deque<PendingReply> replies_ GUARDED_BY(mu_);
  bool hello_due_ GUARDED_BY(mu_) = true;
  bool going_away_due_ GUARDED_BY(mu_) = false;
  bool write_in_flight_ GUARDED_BY(mu_) = false;
  bool read_paused_ GUARDED_BY(mu_) = false;
  bool ending_ GUARDED_BY(mu_) = false;  // no more writes
  bool finished_ GUARDED_BY(mu_) = false;
  grpc::Status final_status_ GUARDED_BY(mu_);
};

}  // namespace runnel::inference
