#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/mutex.h"
#include "services/inference/generation_manager.h"
#include "services/inference/live_streams.h"
#include "services/inference/proto_convert.h"
#include "services/inference/wake_set.h"

namespace runnel::inference {

// One Generate or ResumeGeneration call: a cursor, and one write in flight. `Response` has a mutable_event().
//
// What was read from the log and is not yet written is at most kReadBytes of text; the rest stays in the log. Owned by
// LiveStreams from Start until OnDone. A call that ends detaches its reader and does nothing else to the generation.
template <typename Response>
class StreamReactor final : public grpc::ServerWriteReactor<Response>,
                            public Flushable,
                            public LiveStream,
                            public LogReader,
                            public std::enable_shared_from_this<StreamReactor<Response>> {
 public:
  // Streams the events of `generation` after `after`. `live` must outlive the reactor.
  static StreamReactor* Start(GenerationManager::Started started, uint64_t after, LiveStreams* live) {
    std::shared_ptr<StreamReactor> reactor(new StreamReactor(std::move(started), after, live));
    live->Add(reactor);
    reactor->generation_->AddReader(reactor.get());
    reactor->MaybeWrite();
    return reactor.get();
  }

  ~StreamReactor() override = default;

  void Flush() override { MaybeWrite(); }
  // Its protocol has no word for it; the terminal event or the end of the call comes in time.
  void AnnounceGoingAway() override {}

  std::shared_ptr<Flushable> MarkNews() override EXCLUDES(mu_) {
    base::MutexLock lock(&mu_);
    if (std::exchange(has_news_, true) || write_in_flight_) return nullptr;
    return this->shared_from_this();
  }

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

  void OnDone() override {
    HandOver();
    generation_->RemoveReader(this);
    live_->Remove(this);
  }

 private:
  static constexpr size_t kReadBytes = 64 << 10;

  StreamReactor(GenerationManager::Started started, uint64_t after, LiveStreams* live)
      : generation_(std::move(started.generation)), hold_(std::move(started.hold)), live_(live), cursor_(after) {}

  void MaybeWrite() EXCLUDES(mu_) {
    while (true) {
      {
        base::MutexLock lock(&mu_);
        if (write_in_flight_ || ending_) return;
        if (next_ == events_.size()) {
          // Taken only by who reads the log next, not by one that still sends what was read before.
          if (!has_news_) return;
          has_news_ = false;
        }
        write_in_flight_ = true;
      }
      const bool ended = at_end_;
      if (!ended && FillResponse()) {
        HandOver();
        this->StartWrite(&response_);
        return;
      }
      base::MutexLock lock(&mu_);
      write_in_flight_ = false;
      ending_ = ending_ || ended || at_end_;
      FinishIfIdleLocked();
    }
  }

  // Of who holds the write. False if there is nothing to send.
  bool FillResponse() {
    if (next_ == events_.size()) {
      events_.clear();
      next_ = 0;
      const EventLog& log = generation_->log();
      const bool more = log.Read(cursor_, kReadBytes, &events_);
      if (events_.empty()) {
        const EventLog::State state = log.GetState();
        if (cursor_ > state.last_seq) events_.push_back(log.MakeGap(cursor_));
        // Resumed at the very end.
        at_end_ = state.ended && cursor_ == state.last_seq;
        if (events_.empty()) return false;
      }
      if (more || std::holds_alternative<Gap>(events_.back().payload)) {
        base::MutexLock lock(&mu_);
        has_news_ = true;
      }
      cursor_ = events_.back().seq;
    }
    Event& event = events_[next_++];
    at_end_ = event.terminal();
    if (at_end_) {
      // Comes back here after the write, to finish the call.
      base::MutexLock lock(&mu_);
      has_news_ = true;
    }
    response_.Clear();
    response_.mutable_event()->set_generation_id(generation_->id());
    EventToProto(std::move(event), response_.mutable_event());
    return true;
  }

  // What was filled is the next holder's, which may be another thread, from here on. gRPC orders the two anyway, but by
  // locks that ThreadSanitizer does not see.
  void HandOver() EXCLUDES(mu_) { base::MutexLock lock(&mu_); }

  void FinishIfIdleLocked() REQUIRES(mu_) {
    // Never while a write is in flight, and once: gRPC aborts on either.
    if (!ending_ || write_in_flight_ || std::exchange(finished_, true)) return;
    this->Finish(grpc::Status::OK);
  }

  const std::shared_ptr<Generation> generation_;
  const Generation::Hold hold_;
  LiveStreams* const live_;

  // Of who holds the write.
  Response response_;
  std::vector<Event> events_;
  size_t next_ = 0;
  uint64_t cursor_;
  bool at_end_ = false;

  base::Mutex mu_;
  bool has_news_ GUARDED_BY(mu_) = true;
  bool write_in_flight_ GUARDED_BY(mu_) = false;
  bool ending_ GUARDED_BY(mu_) = false;
  bool finished_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::inference
