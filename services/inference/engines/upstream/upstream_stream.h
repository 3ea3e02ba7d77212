#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/inference/engines/upstream/response_parser.h"
#include "services/inference/engines/upstream/upstream_continuation.h"
#include "services/inference/engines/upstream/upstream_loop.h"
#include "services/inference/engines/upstream/upstream_output.h"
#include "services/inference/engines/upstream/upstream_replay.h"
#include "services/inference/engines/upstream/upstream_request.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// The result of Prepare: the request as it will be sent.
class PreparedUpstream final : public PreparedGeneration {
 public:
  // Not known before the upstream reports its usage at the end.
  uint32_t prompt_tokens() const override { return 0; }

  std::string path;
  UpstreamBody body;
  size_t model = 0;  // its number in UpstreamSet
  std::optional<uint32_t> max_tokens;
  bool limit_dropped = false;  // the server rejected the limit: it is enforced here
  uint32_t choice_count = 1;
  std::vector<std::string> stop;
  std::optional<UpstreamContinuation> continuation;
  std::vector<LoggedOutput> logged;  // if the output is to be made again
};

// One generation on its way through an upstream into its sink: a coroutine of a loop. Confined to the loop's thread
// from Start on.
//
// If an upstream fails before it has sent any output, the next one is tried, each of them once.
class UpstreamStream final : private UpstreamResponseParser::Handler {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    UpstreamOutput::Options output;
    absl::Duration linger;               // time limit of the stream after its last finish reason
    absl::Duration first_token_timeout;  // from when the connection is established
    absl::Duration next_token_timeout;   // from each token
    absl::Duration total_timeout;        // from the start, over all upstreams
  };
  // `over` is called at the end with the outcome: done, cancelled, or the code of the failure.
  using OnOver = absl::AnyInvocable<void(const std::string& outcome)>;
  UpstreamStream(UpstreamLoop* loop, std::unique_ptr<PreparedUpstream> prepared, std::shared_ptr<EventSink> sink,
                 const Options& options, prometheus::Counter* failovers, OnOver over);

  // Until the sink has had its last call.
  Awaitable<void> Run();
  // After an exception of Run, or instead of it.
  void FailInternally() noexcept;

  // Why it has to end before its output does.
  enum class Reason { kNone, kCancelled, kStopping, kTooLong };
  void Interrupt(Reason reason);
  void CheckCancelled() {
    if (sink_->cancelled()) Interrupt(Reason::kCancelled);
  }
  void CheckDeadlines(Clock::time_point now);
  void OnPlaceFree() {
    if (place_timer_ != nullptr) place_timer_->cancel();
  }

 private:
  // How an exchange with one upstream ended.
  enum class End {
    kWhole,      // the response was read to its end
    kNoConnect,  // nothing was sent: no connection
    kUntrusted,  // nothing was sent: the TLS handshake failed, or the server's certificate is not trusted
    kCut,        // the connection was lost, or the response is not HTTP
    kUnwanted,   // the rest of the response is not wanted
  };
  // A deadline of this upstream that has passed.
  enum class Expired { kNone, kIo, kToken, kLinger };
  struct Attempt {
    UpstreamVerdict verdict = UpstreamVerdict::kUnknown;
    bool over = false;  // otherwise the next upstream is tried, and this is what to report if there is none
    Failed failed;
  };

  Awaitable<std::optional<size_t>> TakePlace(const std::vector<size_t>& tried);
  Awaitable<Attempt> Try(size_t upstream);
  Awaitable<End> Exchange(UpstreamConnection* connection, const UpstreamTarget& target);
  Awaitable<End> ReadResponse(UpstreamConnection* connection, const UpstreamTarget& target);
  bool OnHead(const UpstreamHead& head) override;
  bool OnBody(std::string_view bytes) override;
  void Reset();
  void EndOutput(const Failed& failed);
  void EndWithout(const Failed& failed);
  // What to report if it ends now: `failed`, unless it was interrupted.
  Failed InterruptedOr(const Failed& failed) const;
  void GiveBackPlace(UpstreamVerdict verdict);
  void Over(const std::string& outcome);
  // Whether the continuation has nothing left to ask for: then it has ended.
  bool EndAtOnce();
  UpstreamVerdict Judge(End end) const;
  Failed FailureOf(End end) const;
  bool interrupted() const { return reason_ != Reason::kNone; }

  UpstreamLoop* const loop_;
  const std::unique_ptr<PreparedUpstream> prepared_;
  const std::shared_ptr<EventSink> sink_;
  const Options options_;
  prometheus::Counter* const failovers_;
  OnOver over_;
  const Clock::time_point total_deadline_;

  Reason reason_ = Reason::kNone;
  std::optional<size_t> place_;               // the upstream that it occupies
  Timer* place_timer_ = nullptr;              // while it waits for a place
  UpstreamConnection* connection_ = nullptr;  // during an exchange
  bool begun_ = false;

  // Of the present attempt.
  std::optional<UpstreamReplay> replay_;
  std::optional<UpstreamOutput> output_;
  std::optional<UpstreamResponseParser> parser_;
  Expired expired_ = Expired::kNone;
  Clock::time_point io_deadline_;
  Clock::time_point token_deadline_;
  Clock::time_point linger_deadline_;
  int status_ = 0;
  bool malformed_ = false;  // the response is not HTTP, or above a limit
  bool is_event_stream_ = false;
  std::string content_type_;
  std::string error_body_;  // of a response that is not an event stream
  absl::Duration retry_after_;
};

}  // namespace runnel::inference
