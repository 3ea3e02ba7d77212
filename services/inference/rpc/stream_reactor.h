#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/grpc_status.h"
#include "services/base/mutex.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/generation/wake_set.h"
#include "services/inference/rpc/cursor_check.h"
#include "services/inference/rpc/event_to_proto.h"
#include "services/inference/rpc/live_calls.h"

namespace runnel::inference {

// One Generate or ResumeGeneration call: a cursor, and at most one write in flight. `Response` has a mutable_event().
// If it has parts, the first response carries those that were opened up to the cursor.
//
// The reactor exists before its generation: Read or Reject follows, on any thread, and has no effect if the call has
// ended meanwhile. At most kReadBytes of text are read from the log ahead of the write; the rest stays in the log.
// Owned by LiveCalls from Open until OnDone. The end of the call detaches its reader and has no other effect on the
// generation.
template <typename Response>
class StreamReactor final : public grpc::ServerWriteReactor<Response>,
                            public Flushable,
                            public LiveCall,
                            public std::enable_shared_from_this<StreamReactor<Response>> {
 public:
  // `live` must outlive the reactor. A gap has a snapshot of at most `max_snapshot_bytes`.
  static std::shared_ptr<StreamReactor> Open(LiveCalls* live, size_t max_snapshot_bytes) {
    std::shared_ptr<StreamReactor> reactor(new StreamReactor(live, max_snapshot_bytes));
    live->Add(reactor);
    return reactor;
  }

  // Streams the events after a cursor.
  void Read(GenerationManager::Started started, uint64_t after, uint32_t after_epoch = 0) EXCLUDES(mu_) {
    const bool tail_lost = IsTailLost(*started.generation, after, after_epoch);
    auto attachment = std::make_unique<Attachment>(this, std::move(started));  // created and destroyed without the lock
    base::MutexLock lock(&mu_);
    if (ending_) return;
    attachment_ = std::move(attachment);
    cursor_ = after;
    tail_lost_ = tail_lost;
    ready_ = true;
    lock.Release();
    MaybeWrite();
  }

  // Ends the call without initial metadata, so that the client may retry it.
  void Reject(const absl::Status& status) EXCLUDES(mu_) {
    base::MutexLock lock(&mu_);
    if (std::exchange(ending_, true)) return;
    final_status_ = base::ToGrpcStatus(status);
    FinishIfIdleLocked();
  }

  ~StreamReactor() override = default;

  void Flush() override { MaybeWrite(); }
  // This protocol cannot express it; the terminal event or the end of the call follows.
  void AnnounceGoingAway() override {}

  void OnWriteDone(bool ok) override EXCLUDES(mu_) {
    {
      base::MutexLock lock(&mu_);
      write_in_flight_ = false;
      if (!ok) ending_ = true;
      FinishIfIdleLocked();
    }
    MaybeWrite();
  }

  void OnCancel() override EXCLUDES(mu_) {
    base::MutexLock lock(&mu_);
    ending_ = true;
    FinishIfIdleLocked();
  }

  void OnDone() override EXCLUDES(mu_) {
    std::unique_ptr<Attachment> attachment;  // destroyed after the lock
    {
      base::MutexLock lock(&mu_);
      attachment = std::move(attachment_);
    }
    attachment.reset();
    live_->Remove(this);
  }

 private:
  // The reader of the log. Removes itself from the log when it is destroyed, which must not happen under mu_.
  class Attachment final : public LogReader {
   public:
    Attachment(StreamReactor* stream, GenerationManager::Started started)
        : stream_(stream), generation_(std::move(started.generation)), hold_(std::move(started.hold)) {
      generation_->AddReader(this);
    }
    ~Attachment() override { generation_->RemoveReader(this); }

    std::shared_ptr<Flushable> MarkReady() override { return stream_->MarkReady(this); }
    const Generation& generation() const { return *generation_; }

   private:
    StreamReactor* const stream_;
    const std::shared_ptr<Generation> generation_;
    const Generation::Hold hold_;
  };

  static constexpr size_t kReadBytes = 64 << 10;

  StreamReactor(LiveCalls* live, size_t max_snapshot_bytes) : live_(live), max_snapshot_bytes_(max_snapshot_bytes) {}

  std::shared_ptr<Flushable> MarkReady(const Attachment* attachment) EXCLUDES(mu_) {
    base::MutexLock lock(&mu_);
    // Before Read has stored the attachment, Read itself sets ready_.
    if (attachment_.get() != attachment || std::exchange(ready_, true) || write_in_flight_) return nullptr;
    return this->shared_from_this();
  }

  void MaybeWrite() EXCLUDES(mu_) {
    while (true) {
      const Generation* generation = nullptr;
      {
        base::MutexLock lock(&mu_);
        if (write_in_flight_ || ending_ || attachment_ == nullptr) return;
        if (next_ == events_.size()) {
          // Cleared only before the log is read, not while events that were read before are sent.
          if (!ready_) return;
          ready_ = false;
        }
        write_in_flight_ = true;
        // Not destroyed while write_in_flight_ is set: OnDone cannot run before.
        generation = &attachment_->generation();
      }
      const bool ended = at_end_;
      if (!ended && FillResponse(*generation)) {
        SyncWithOtherThreads();
        this->StartWrite(&response_);
        return;
      }
      base::MutexLock lock(&mu_);
      write_in_flight_ = false;
      ending_ = ending_ || ended || at_end_;
      if (moved_ && !std::exchange(ending_, true)) final_status_ = base::ToGrpcStatus(OwnedElsewhereError(""));
      FinishIfIdleLocked();
    }
  }

  // Called by the thread that has set write_in_flight_. False if there is nothing to send.
  bool FillResponse(const Generation& generation) {
    const uint64_t after = cursor_;
    const bool tail_lost = std::exchange(tail_lost_, false);
    if (next_ == events_.size()) {
      events_.clear();
      next_ = 0;
      const EventLog& log = generation.log();
      // Before the log is read: if it is fenced later, the reader is marked again.
      bool more = generation.fenced();
      if (tail_lost) {
        events_.push_back(log.MakeGap(cursor_, max_snapshot_bytes_, Gap::Reason::kTailLost));
      } else {
        more |= log.Read(cursor_, kReadBytes, &events_);
      }
      if (events_.empty()) {
        const EventLog::State state = log.GetState();
        if (cursor_ > state.last_seq) events_.push_back(log.MakeGap(cursor_, max_snapshot_bytes_));
        // The client has resumed after the terminal event.
        at_end_ = state.ended && cursor_ == state.last_seq;
        moved_ = state.fenced && !at_end_;
        if (events_.empty()) return false;
      }
      if (more || std::holds_alternative<Gap>(events_.back().payload)) {
        base::MutexLock lock(&mu_);
        ready_ = true;
      }
      cursor_ = events_.back().seq;
    }
    Event& event = events_[next_++];
    at_end_ = event.terminal();
    if (at_end_) {
      // So that MaybeWrite finishes the call after this write.
      base::MutexLock lock(&mu_);
      ready_ = true;
    }
    response_.Clear();
    if constexpr (requires { response_.add_parts(); }) {
      if (std::exchange(first_, false) && !tail_lost) {
        for (OpenedPart& part : generation.log().OpenedParts(after)) {
          OpenedPartToProto(std::move(part), response_.add_parts());
        }
      }
    }
    response_.mutable_event()->set_generation_id(generation.id());
    EventToProto(std::move(event), generation.epoch(), response_.mutable_event());
    return true;
  }

  // Locks and unlocks mu_, so that the thread of the next write sees the members that this one has filled. gRPC orders
  // the two threads anyway, but by locks that ThreadSanitizer does not see.
  void SyncWithOtherThreads() EXCLUDES(mu_) { base::MutexLock lock(&mu_); }

  void FinishIfIdleLocked() REQUIRES(mu_) {
    // Never during a write and only once: gRPC aborts otherwise.
    if (!ending_ || write_in_flight_ || std::exchange(finished_, true)) return;
    this->Finish(final_status_);
  }

  LiveCalls* const live_;
  const size_t max_snapshot_bytes_;

  // Used by the thread that has set write_in_flight_, then by the write.
  Response response_;
  std::vector<Event> events_;
  size_t next_ = 0;
  uint64_t cursor_ = 0;
  bool at_end_ = false;
  bool tail_lost_ = false;  // a gap is due
  bool moved_ = false;      // the log is that of another replica now
  bool first_ = true;

  base::Mutex mu_;
  std::unique_ptr<Attachment> attachment_ GUARDED_BY(mu_);  // null before Read
  grpc::Status final_status_ GUARDED_BY(mu_);
  bool ready_ GUARDED_BY(mu_) = false;
  bool write_in_flight_ GUARDED_BY(mu_) = false;
  bool ending_ GUARDED_BY(mu_) = false;
  bool finished_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::inference
