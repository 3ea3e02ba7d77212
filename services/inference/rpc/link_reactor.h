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
#include "services/inference/rpc/cursor_check.h"
#include "services/inference/rpc/live_calls.h"
#include "services/inference/rpc/request_from_proto.h"

namespace runnel::inference {

struct LinkOptions {
  std::string replica;
  uint32_t max_attachments = 20'000;
  size_t max_batch_bytes = 256 << 10;
  // Text of one attachment in one batch, so that the replay of a long log does not delay the other attachments. Also
  // the limit of a gap's snapshot.
  size_t max_attachment_bytes = 16 << 10;
  // Commands without a reply, plus replies not written yet. At the limit no more commands are read.
  size_t max_pending_replies = 4096;
  // The largest message that the service accepts; announced to the bridges.
  size_t max_request_bytes = base::kGrpcDefaultMessageBytes;
  RequestDefaults defaults;
};

// One Link: a cursor for each of the bridge's attachments, and at most one write in flight. Only replies are queued.
// Events stay in the logs, and ready_ lists the attachments whose logs have grown.
//
// The way of an event: an append marks the attachment (MarkReady, under the log's lock), which adds it to ready_. The
// first one to be added puts the reactor into the engine's WakeSet, and at the end of the step Flush calls MaybeWrite.
// It takes ready_ as one round, reads each of those logs from the attachment's cursor and fills one batch. The log is
// read here, and not when it was marked, because by now it may hold more events, which merge into one delta, and
// because a lock order of log before reactor forbids reading under mu_. While a write is in flight nothing is woken:
// OnWriteDone takes whatever has become ready meanwhile.
//
// Owned by LiveCalls from Start until OnDone. The code is in four files: link_reactor.cc (the life of the call),
// link_commands.cc and link_claims.cc (what the bridge asks for), link_batch.cc (what is written).
class LinkReactor final : public grpc::ServerBidiReactor<v1::LinkRequest, v1::LinkResponse>,
                          public Flushable,
                          public LiveCall,
                          public std::enable_shared_from_this<LinkReactor> {
 public:
  // All arguments must outlive the reactor.
  static LinkReactor* Start(GenerationManager* manager, const LinkOptions* options, LiveCalls* live);
  ~LinkReactor() override;

  void Flush() override { MaybeWrite(); }
  void AnnounceGoingAway() override EXCLUDES(mu_);
  void AnnounceStopped() override EXCLUDES(mu_);
  void AnnounceGone(const std::string& id_prefix) override EXCLUDES(mu_);

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
  // Where an attachment starts in the log, and how it reads.
  struct Reading {
    uint64_t after = 0;
    uint32_t after_epoch = 0;
    v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL;
    bool unmerged = false;

    bool TailLost(const Generation& generation) const { return IsTailLost(generation, after, after_epoch); }
  };
  void FindAndAttach(uint32_t number, uint64_t ticket, const std::string& id, const std::string& principal,
                     const Reading& reading) EXCLUDES(mu_);
  // Reserves `number` for a generate or attach, whose reply may follow later and from another thread. Returns its
  // ticket, or 0 if the number is in use or too large; then the Link is ending.
  uint64_t TakeNumber(uint32_t number) EXCLUDES(mu_);
  // The two outcomes of such a command. Each only releases its arguments if the Link has ended or a detach has
  // overtaken the command: then the number no longer has this ticket.
  void Attach(uint32_t number, uint64_t ticket, GenerationManager::Started started, const Reading& reading)
      EXCLUDES(mu_);
  void Reject(uint32_t number, uint64_t ticket, const absl::Status& status) EXCLUDES(mu_);
  // True, once, if `ticket` is the number's.
  bool TakeTicketLocked(uint32_t number, uint64_t ticket) REQUIRES(mu_);
  void Reply(v1::LinkReply reply) EXCLUDES(mu_);

  std::shared_ptr<Flushable> MarkReady(Attachment* attachment) EXCLUDES(mu_);
  void MaybeWrite() EXCLUDES(mu_);
  // Starts a batch: moves hello, going_away and replies into it, and the ready attachments into `round`. Adds to
  // `bytes` what the batch holds then. False if there is nothing to write, or a write is in flight.
  bool TakeRound(std::vector<std::shared_ptr<Attachment>>* round, size_t* bytes) EXCLUDES(mu_);
  // Moves replies into the batch, and the attachments that they open to ready_. Returns the bytes of the replies.
  size_t TakeRepliesLocked() REQUIRES(mu_);
  // Fills the batch with events, up to max_batch_bytes. `bytes`: of the replies in it.
  void FillBatch(std::vector<std::shared_ptr<Attachment>> round, size_t bytes) EXCLUDES(mu_);
  // Moves new events of one attachment into the batch; returns their bytes.
  size_t FillFrom(const std::shared_ptr<Attachment>& attachment, size_t max_bytes) EXCLUDES(mu_);
  void EndAttachment(const std::shared_ptr<Attachment>& attachment) EXCLUDES(mu_);
  // Ends an attachment whose generation is fenced.
  void EndMoved(const std::shared_ptr<Attachment>& attachment) EXCLUDES(mu_);
  void BeginEnd(grpc::Status status) EXCLUDES(mu_);
  void FinishIfIdleLocked() REQUIRES(mu_);
  void DropAttachments() EXCLUDES(mu_);
  // Locks and unlocks mu_, so that the next thread sees what this one has written to members without a lock. gRPC
  // orders the two threads anyway, but by locks that ThreadSanitizer does not see.
  void SyncWithOtherThreads() EXCLUDES(mu_);

  GenerationManager* const manager_;
  const LinkOptions* const options_;
  LiveCalls* const live_;
  const uint64_t claimant_;

  // Used by the one read in flight.
  v1::LinkRequest request_;
  // Used by the thread that fills the batch, then by the write in flight.
  base::ArenaMessage<v1::LinkResponse> response_;
  std::vector<Event> scratch_;

  base::Mutex mu_;                                                  // locked after a log's lock, never before
  std::vector<std::shared_ptr<Attachment>> slots_ GUARDED_BY(mu_);  // by number
  struct Number {
    uint64_t ticket = 0;  // of the generate or attach that has no reply yet; 0: none
    // The reply to its last command was `detached`, so a detach that crosses it gets no second one.
    bool detached_sent = false;
  };
  std::vector<Number> numbers_ GUARDED_BY(mu_);  // as many as slots_
  uint64_t last_ticket_ GUARDED_BY(mu_) = 0;
  size_t opening_ GUARDED_BY(mu_) = 0;                              // numbers with a ticket
  std::vector<std::shared_ptr<Attachment>> ready_ GUARDED_BY(mu_);  // in the order in which they are served
  struct PendingReply {
    v1::LinkReply reply;
    // Of an `attached`: its first events are in the batch that has the reply, or later. Destroyed without the lock.
    std::shared_ptr<Attachment> attachment;
  };
  std::deque<PendingReply> replies_ GUARDED_BY(mu_);
  bool hello_due_ GUARDED_BY(mu_) = true;
  bool going_away_due_ GUARDED_BY(mu_) = false;
  std::vector<std::string> gone_prefixes_ GUARDED_BY(mu_);  // to be announced
  bool write_in_flight_ GUARDED_BY(mu_) = false;
  bool read_paused_ GUARDED_BY(mu_) = false;
  bool ending_ GUARDED_BY(mu_) = false;  // no more writes
  bool finished_ GUARDED_BY(mu_) = false;
  grpc::Status final_status_ GUARDED_BY(mu_);
};

}  // namespace runnel::inference
