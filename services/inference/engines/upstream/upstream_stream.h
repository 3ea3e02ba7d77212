#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/mutex.h"
#include "services/inference/engines/upstream/upstream_answer.h"
#include "services/inference/engines/upstream/upstream_connection.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// The result of Prepare: the request as it will be sent.
class PreparedUpstream final : public PreparedGeneration {
 public:
  // Not known before the upstream reports its usage at the end.
  uint32_t prompt_tokens() const override { return 0; }

  std::string path;
  std::string body;
  uint32_t choice_count = 1;
};

// One generation on its way from the engine's queue through an upstream into its sink. Shared by the thread that runs
// it and the engine's watcher.
//
// Until the connection is established, the first of the two threads to act ends the generation: the watcher, if it was
// cancelled, so that a cancel never waits for the queue or a connect timeout. From then on the sink belongs to the
// running thread, and the watcher only closes the connection.
//
// If an upstream fails before it has sent anything, the next one is tried, each of them once.
class UpstreamStream {
 public:
  struct Options {
    UpstreamAnswer::Options answer;
    absl::Duration linger;               // time limit of the stream after its last finish reason
    absl::Duration first_token_timeout;  // from when the connection is established
    absl::Duration next_token_timeout;   // from each token
  };
  UpstreamStream(std::unique_ptr<PreparedUpstream> prepared, std::shared_ptr<EventSink> sink, const Options& options);

  // Blocks until the exchange is over. The sink has had its last call then, from this thread or from the watcher.
  // Returns the outcome: done, cancelled, or the code of the failure. Counts in `failovers` each switch to another
  // upstream.
  std::string Run(UpstreamSet* upstreams, prometheus::Counter* failovers) EXCLUDES(mu_);

  using SteadyClock = std::chrono::steady_clock;
  // Ends it, or makes Run end it, if it was cancelled, the engine stops, or a time limit has passed. Never blocks for
  // long. Returns the latest time for the next call.
  SteadyClock::time_point Watch(bool engine_stops) EXCLUDES(mu_);

 private:
  enum class State { kWaiting, kStreaming, kEnded };
  // The result of one upstream.
  struct Attempt {
    UpstreamVerdict verdict = UpstreamVerdict::kUnknown;
    std::string outcome;  // empty: the next upstream is tried
    Failed failed;        // if outcome is empty
  };

  UpstreamResult Exchange(std::string_view path, std::string_view body, UpstreamConnection* connection) EXCLUDES(mu_);
  bool OnConnected(UpstreamConnection* connection) EXCLUDES(mu_);
  bool OnHead(int status, const UpstreamConnection::Head& head);
  bool OnBody(std::string_view bytes) EXCLUDES(mu_);
  // False if the watcher has ended it. Otherwise this thread has to end it, or it waits again if `again` stays true.
  bool OnExchangeOver(bool* again, bool* engine_stops) EXCLUDES(mu_);
  Attempt Try(UpstreamConnectionPool* pool) EXCLUDES(mu_);
  void Reset();
  bool HasEnded() EXCLUDES(mu_);
  // No upstream is left to try.
  std::string EndWithout(Failed failed) EXCLUDES(mu_);
  void End(const UpstreamResult& result, bool engine_stops) EXCLUDES(mu_);
  UpstreamVerdict Judge(const UpstreamResult& result) EXCLUDES(mu_);
  Failed FailureOf(const UpstreamResult& result) EXCLUDES(mu_);

  const Options options_;
  const std::unique_ptr<PreparedUpstream> prepared_;
  const std::shared_ptr<EventSink> sink_;

  // Used by the running thread only.
  std::optional<UpstreamAnswer> answer_;
  bool begun_ = false;
  bool is_event_stream_ = false;
  std::string content_type_;
  std::string error_body_;  // of a response that is not an event stream
  absl::Duration retry_after_;

  base::Mutex mu_;
  State state_ GUARDED_BY(mu_) = State::kWaiting;
  UpstreamConnection* connection_ GUARDED_BY(mu_) = nullptr;  // while state_ is kStreaming
  bool engine_stops_ GUARDED_BY(mu_) = false;
  bool cut_ GUARDED_BY(mu_) = false;        // the watcher has cut the connection, for good
  bool timed_out_ GUARDED_BY(mu_) = false;  // the watcher has cut the connection, because no token arrived in time
  SteadyClock::time_point token_until_ GUARDED_BY(mu_) = SteadyClock::time_point::max();
  SteadyClock::time_point linger_until_ GUARDED_BY(mu_) = SteadyClock::time_point::max();
};

}  // namespace runnel::inference
