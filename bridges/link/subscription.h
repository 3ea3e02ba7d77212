#pragma once

#include <boost/intrusive/list_hook.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/generation_info.h"
#include "bridges/link/keyed_starts.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

class Link;
class ReplicaRouter;

// One reader of one generation: a cursor into its log that outlives Links. When a Link is lost it attaches again after
// the last event that it has handed on, by itself; so its reader sees each event once and in order, or an end. When the
// replica that keeps the log is gone, so is the log: then the reader is handed a `failed` with the code
// generation_lost, which no log has.
//
// Nothing is queued here. Events go from a batch of the Link straight into the reader, which makes bytes of them. A
// reader that has too many of those calls Pause, which gives up the attachment: the log is the buffer.
//
// Owned by a connection. Confined to the Link's io thread, with all calls to the reader.
class Subscription {
 public:
  // Who reads. Each batch of a Link calls OnOpened, if due, then OnEvent any number of times, then once OnFlush or
  // OnEnd. The Subscription must not be destroyed within OnOpened or OnEvent; within OnFlush and OnEnd it may.
  class Handler {
   public:
    virtual ~Handler() = default;

    // Once, before any event; generation_id() is known from here on.
    virtual void OnOpened(Subscription* subscription, const GenerationInfo& opened) = 0;
    // The next event of the log (its generation_id is empty), or a gap. It may be moved from.
    virtual void OnEvent(Subscription* subscription, v1::GenerationEvent& event) = 0;
    // The batch has no more for this subscription: now is the time to write.
    virtual void OnFlush(Subscription* subscription) = 0;
    // The answer to Ask. The Subscription may be destroyed within.
    virtual void OnProgress(Subscription* /*subscription*/, const v1::Progress& /*progress*/) {}
    // Nothing comes any more. OK: the terminal event was handed on, or the log had ended at the cursor (then
    // terminal_seen() is false). Before OnOpened: the service's refusal, or Unavailable or DeadlineExceeded if it could
    // not be asked. After OnOpened: the stream broke, which says nothing about the generation: its reader is to attach
    // again after its last event.
    virtual void OnEnd(Subscription* subscription, const absl::Status& status) = 0;
  };

  // Both must outlive it.
  Subscription(ReplicaRouter* router, Handler* reader) : reader_(reader), router_(router) {}
  // Detaches. The reader is not called.
  ~Subscription();
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  // Before either of the two: every event comes alone, also when this reader lags.
  void ReadUnmerged() { unmerged_ = true; }
  // Before Generate: to end rather than to be handed a gap, if the log should have lost its tail.
  void RefuseGaps() { gap_policy_ = v1::GAP_POLICY_FAIL; }
  // Before Attach: the client has read from the generation, though it reads from the beginning now. Without this, and
  // with a cursor of 0, a generation that nothing is known of is not found rather than lost.
  void ReadBefore() { seen_ = true; }
  // One of the two, once; the reader is never called before it returns.
  // Starts `request` and reads it from seq 1; `after_seq` counts if its request_id names a generation that runs
  // already. With a request_id it waits, or ends with Unavailable, while a replica that may know the request_id cannot
  // be asked. If it has no request_id it gets one, so that a start which a lost Link left in doubt can be repeated, and
  // any replica may take it.
  void Generate(v1::GenerateRequest request, uint64_t after_seq = 0, std::string traceparent = "",
                std::string tracestate = "");
  void Attach(std::string generation_id, uint64_t after_seq, std::string principal,
              v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL);

  // Gives up the attachment. No event comes until Continue, which attaches after the last event handed on. The calls
  // may come from within any call of the reader but OnEnd, and do nothing after the end or if already so.
  void Pause();
  void Continue();
  bool paused() const { return paused_; }

  // Asks how far the generation is; OnProgress answers, or nothing if it is not attached at the time.
  void Ask();

  // Empty before OnOpened if it was not given.
  const std::string& generation_id() const { return generation_id_; }
  const std::string& principal() const { return principal_; }
  // The seq of the last event handed on, or the one it was attached after.
  uint64_t last_seq() const { return last_seq_; }
  bool terminal_seen() const { return terminal_seen_; }
  bool ended() const { return state_ == State::kEnded; }

 private:
  friend class KeyedStarts;
  friend class Link;
  friend class ReplicaRouter;

  enum class State : uint8_t {
    kIdle,      // not begun, or paused
    kWaiting,   // for a Link: in the set's list
    kClaiming,  // its key, before it is sent: see KeyedStarts
    kOpening,   // has a number; the command was sent
    kAttached,  // has a number; the service has said so
    kEnded,     // OnEnd was called or is due at the end of the batch
  };

  // What is only needed until the first `attached`; afterwards generation_id_ and last_seq_ say all.
  struct Start {
    v1::LinkGenerate command;
    bool keyed = false;  // the client chose its request_id
    std::vector<const Link*> refused_by;
    absl::Status refusal;                // the last of theirs
    std::unique_ptr<KeyedStart> claims;  // null: not begun, or there are none to make
  };

  // What each event touches comes first and together: between two tokens of a stream all others go by, and each line of
  // memory has to be fetched anew.
  Handler* const reader_;
  uint64_t last_seq_ = 0;
  uint32_t number_ = 0;
  uint32_t dirty_index_ = 0;  // place + 1 in the set's list of those to flush; 0: not in it
  State state_ = State::kIdle;
  v1::GapPolicy gap_policy_ = v1::GAP_POLICY_SIGNAL;
  bool unmerged_ = false;
  bool opened_ = false;
  bool seen_ = false;  // the generation did exist
  bool paused_ = false;
  bool terminal_seen_ = false;
  std::string generation_id_;
  ReplicaRouter* const router_;
  Link* link_ = nullptr;  // of kOpening and kAttached
  std::string principal_;
  std::unique_ptr<Start> start_;
  // Of kWaiting and kOpening, on the monotonic clock.
  absl::Duration deadline_ = absl::InfiniteDuration();
  uint64_t settled_round_ = 0;  // of kWaiting: the round of the ReplicaSet from which on its replicas are all there are
  absl::Status end_;

 public:
  // Of the set's list of those that wait; not for anyone else.
  boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>> waiting_hook_;
};

}  // namespace runnel::bridge
