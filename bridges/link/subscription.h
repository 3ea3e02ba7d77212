#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/generation_info.h"
#include "bridges/base/log_position.h"
#include "bridges/link/keyed_starts.h"
#include "bridges/link/route.h"
#include "bridges/link/waiting_request.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

class Link;
class ReplicaRouter;

// A cursor into the log of one generation, for one reader. It outlives Links: when its Link is lost it attaches again
// after the last event that it delivered, so its handler sees each event once and in order, or an end. When the replica
// that keeps the log is gone, so is the log: the handler then gets a `failed` event with the code generation_lost,
// which no log contains.
//
// It queues nothing. Events pass from a batch of the Link straight to the handler, which encodes them. A handler with
// too many unsent bytes calls Pause, which gives up the attachment: the log is the buffer.
//
// Owned by a connection. Confined to the io thread of the Link, as are all calls of the handler.
class Subscription final : public WaitingRequest {
 public:
  // Each batch of a Link calls OnOpened, if due, then OnEvent any number of times, then OnFlush or OnEnd once. The
  // Subscription must not be destroyed within OnOpened or OnEvent; within the others it may.
  class Handler {
   public:
    virtual ~Handler() = default;

    // Once, before any event; generation_id() is known from here on.
    virtual void OnOpened(Subscription* subscription, const GenerationInfo& opened) = 0;
    // The next event of the log (its generation_id is empty), or a gap. It may be moved from.
    virtual void OnEvent(Subscription* subscription, v1::GenerationEvent& event) = 0;
    // The batch has no more events for this subscription: now is the time to write.
    virtual void OnFlush(Subscription* subscription) = 0;
    // The reply to RequestProgress.
    virtual void OnProgress(Subscription* /*subscription*/, const v1::Progress& /*progress*/) {}
    // No further call follows. OK: the terminal event was delivered, or the log had ended at the cursor (then
    // terminal_seen() is false). Before OnOpened: the service's refusal, or Unavailable or DeadlineExceeded if the
    // service could not be asked. After OnOpened: the stream broke, which says nothing about the generation: the reader
    // should attach again after its last event.
    virtual void OnEnd(Subscription* subscription, const absl::Status& status) = 0;
  };

  // Both must outlive it.
  Subscription(ReplicaRouter* router, Handler* handler) : handler_(handler), router_(router) {}
  // Detaches, without a call of the handler.
  ~Subscription();
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  // Before Generate or Attach: every event is delivered separately, even if this reader lags.
  void ReadUnmerged() { unmerged_ = true; }
  // Before Attach: the client has read from the generation, though it reads from the beginning now. Without this, and
  // with a cursor of 0, an unknown generation is reported as not found rather than lost.
  void ReadBefore() { seen_ = true; }
  // Either Generate or Attach is called, once; neither calls the handler before it returns.
  // Generate starts `request` and reads it from seq 1; `after` counts if its request_id names a generation that
  // exists. With a request_id it waits, or ends with Unavailable, while a replica that may know the request_id cannot
  // be asked. A request without a request_id gets one, so that a start can be repeated if the loss of a Link left its
  // outcome unknown; any replica may take such a request.
  void Generate(v1::GenerateRequest request, LogPosition after = {}, std::string traceparent = "",
                std::string tracestate = "");
  void Attach(std::string generation_id, LogPosition after, std::string principal,
              v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL);

  // Gives up the attachment: no events are delivered until Continue, which attaches after the last one delivered. Both
  // may be called within any call of the handler but OnEnd. They do nothing after the end, or if already so.
  void Pause();
  void Continue();
  // Reads the log again from its beginning. Within OnEvent, no further event of the batch is delivered.
  void ReadAgain();
  bool paused() const { return paused_; }

  // Requests the progress of the generation. OnProgress receives the reply. Without an attachment nothing happens.
  void RequestProgress();

  // Empty before OnOpened, unless given to Attach.
  const std::string& generation_id() const { return generation_id_; }
  const std::string& principal() const { return principal_; }
  // The last event delivered, or the cursor that was given. A gap may set it back.
  uint64_t last_seq() const { return last_seq_; }
  LogPosition position() const { return {last_seq_, epoch_}; }
  bool terminal_seen() const { return terminal_seen_; }
  bool ended() const { return state_ == State::kEnded; }

  // The rest is for the ReplicaRouter and its parts, not for connections: the state of the subscription and its
  // transitions.

  enum class State : uint8_t {
    kIdle,      // not begun, or paused
    kWaiting,   // in the router's waiting list
    kClaiming,  // claims its key before it is sent: see KeyedStarts
    kOpening,   // has a number; the command was sent
    kAttached,  // has a number; the service has confirmed it
    kEnded,     // OnEnd was called, or is due at the end of the batch
  };

  // Needed until the first `attached`; afterwards generation_id() and position() are enough.
  struct Start {
    v1::LinkGenerate command;
    bool keyed = false;           // the client chose its request_id
    bool claim_required = false;  // a replica has rejected it without a claim
    std::vector<const Link*> refused_by;
    absl::Status refusal;                // the last of refused_by
    std::unique_ptr<KeyedStart> claims;  // null: not begun, or no claims are needed
  };

  State state() const { return state_; }
  bool opened() const { return opened_; }
  // Whether the reader knows that the generation existed.
  bool seen() const { return seen_; }
  // Null for an Attach, and once opened.
  Start* start() { return extra_ == nullptr ? nullptr : extra_->start.get(); }
  const Start* start() const { return extra_ == nullptr ? nullptr : extra_->start.get(); }
  // Null if it was never referred to another replica.
  Route* route() { return extra_ == nullptr ? nullptr : extra_->route.get(); }
  const Route* route() const { return extra_ == nullptr ? nullptr : extra_->route.get(); }
  Route& MutableRoute();
  // Whether it must not be sent yet.
  bool backing_off(absl::Duration now) const { return route() != nullptr && route()->retry_at() > now; }
  // While kOpening or kAttached.
  uint32_t number() const { return number_; }
  // When waiting and opening end, on the monotonic clock.
  absl::Duration deadline() const {
    return deadline_ns_ == kNever ? absl::InfiniteDuration() : absl::Nanoseconds(deadline_ns_);
  }
  // The command that opens it over `link`.
  v1::LinkRequest MakeCommand(const Link& link) const;

  void SetDeadline(absl::Duration deadline) { deadline_ns_ = absl::ToInt64Nanoseconds(deadline); }
  // It cannot be sent yet. From `min_round` of the ReplicaSet on, its list of replicas is recent enough to decide.
  void Wait(uint64_t min_round);
  uint64_t min_round() const { return min_round_; }
  bool Retry(absl::Duration now) override;
  void OnRouterGone() override {}

  void OnClaimBegun() { state_ = State::kClaiming; }
  void OnClaimed() { state_ = State::kIdle; }
  void DropClaims();
  // The Link keeps the claims of a start whose reader left before the reply.
  std::unique_ptr<KeyedStart> TakeClaims();

  void OnSent(Link* link, uint32_t number);
  void OnAttached(v1::LinkAttached& attached);
  void OnRefused();
  // The replica has ended the attachment, and another one has the log.
  void OnMoved(absl::Duration recover_until);
  // Its Link does not count any more: gives up the number there.
  void LeaveLink();
  void OnLinkLost(absl::Duration recover_until, uint64_t min_round);
  void OnProgress(const v1::Progress& progress);

  // What the next event from the Link means. If not kSkip or kHole, Deliver must follow.
  enum class Step { kSkip, kHole, kEvent, kTerminal };
  Step Advance(const v1::GenerationEvent& event);
  void Deliver(v1::GenerationEvent& event) { handler_->OnEvent(this, event); }

  // Gives up its place in the waiting list, its claims or its number; kIdle unless it has ended.
  void Leave();
  // Makes `status` its end. It has no number any more. The next Flush reports the end to the handler.
  void End(absl::Status status);
  // The log of a generation that was open is gone: delivers generation_lost, then ends.
  void FailLost();
  void Flush();
  // Place + 1 in the FlushList; 0: not in it.
  uint32_t flush_index() const { return flush_index_; }
  void set_flush_index(uint32_t index) { flush_index_ = index; }

 private:
  // What only a start needs, or a reader that was referred to another replica.
  struct Extra {
    std::unique_ptr<Start> start;
    std::unique_ptr<Route> route;
  };

  // An infinite duration in nanoseconds.
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  // Hot fields first, adjacent, so that one event touches few cache lines: those of a stream have left the cache by its
  // next event.
  Handler* const handler_;
  uint64_t last_seq_ = 0;
  uint32_t number_ = 0;
  uint32_t flush_index_ = 0;
  uint32_t epoch_ = 0;  // of the event last_seq_
  State state_ = State::kIdle;
  bool unmerged_ = false;
  bool refuse_gaps_ = false;
  bool opened_ = false;
  bool seen_ = false;
  bool paused_ = false;
  bool terminal_seen_ = false;
  int64_t deadline_ns_ = kNever;  // half the size of an absl::Duration
  std::string generation_id_;
  ReplicaRouter* const router_;
  Link* link_ = nullptr;  // while kOpening or kAttached
  std::string principal_;
  std::unique_ptr<Extra> extra_;  // null for most
  uint64_t min_round_ = 0;
  absl::Status end_;
};

inline Subscription::Step Subscription::Advance(const v1::GenerationEvent& event) {
  if (state_ != State::kAttached) return Step::kSkip;
  if (!event.has_gap()) {
    if (event.seq() <= last_seq_) return Step::kSkip;
    const uint64_t first = event.first_seq() == 0 ? event.seq() : event.first_seq();
    if (first != last_seq_ + 1) return Step::kHole;
  }
  last_seq_ = event.seq();
  epoch_ = event.epoch();
  if (!event.has_done() && !event.has_failed()) return Step::kEvent;
  terminal_seen_ = true;
  return Step::kTerminal;
}

}  // namespace runnel::bridge
