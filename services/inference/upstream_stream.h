#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "services/base/mutex.h"
#include "services/inference/engine.h"
#include "services/inference/upstream_answer.h"
#include "services/inference/upstream_connection.h"

namespace runnel::inference {

// What Prepare makes: the request as it will be sent.
class PreparedUpstream final : public PreparedGeneration {
 public:
  // Only the upstream's own tokeniser knows; its usage corrects it at the end.
  uint32_t prompt_tokens() const override { return 0; }

  std::string path;
  std::string body;
  uint32_t choice_count = 1;
};

// One generation's way through the upstream: from the engine's queue over a connection into its sink. Shared by the
// thread that runs it and the engine's watcher.
//
// Until the connection stands, whoever is first ends it: the watcher, if the generation was cancelled, so that a cancel
// never waits for a queue or a connect timeout. From then on the sink belongs to the running thread, and the watcher
// merely cuts the connection under it.
class UpstreamStream {
 public:
  struct Options {
    UpstreamAnswer::Options answer;
    absl::Duration linger;  // how long the stream may go on after its last finish reason
  };
  UpstreamStream(std::unique_ptr<PreparedUpstream> prepared, std::shared_ptr<EventSink> sink, const Options& options);

  // Blocks until the exchange is over. The sink has had its last call then, and so it has if the watcher made it.
  // Returns the outcome: done, cancelled, or the code of the failure.
  std::string Run(UpstreamConnectionPool* pool) EXCLUDES(mu_);

  // Ends it, or makes Run end it, if it has been cancelled, if the engine stops, or if it lingers. Never blocks for
  // long.
  void Watch(bool engine_stops) EXCLUDES(mu_);

 private:
  enum class State { kWaiting, kStreaming, kEnded };
  using SteadyClock = std::chrono::steady_clock;

  UpstreamResult Exchange(std::string_view path, std::string_view body, UpstreamConnection* connection) EXCLUDES(mu_);
  bool OnConnected(UpstreamConnection* connection) EXCLUDES(mu_);
  bool OnHead(int status, std::string_view content_type);
  bool OnBody(std::string_view bytes) EXCLUDES(mu_);
  // False if the watcher has ended it. Else it is this thread's to end, or waits again if `again` is left true.
  bool OnExchangeOver(bool* again, bool* engine_stops) EXCLUDES(mu_);
  void End(const UpstreamResult& result, bool engine_stops);
  Failed FailureOf(const UpstreamResult& result) const;

  const Options options_;
  const std::unique_ptr<PreparedUpstream> prepared_;
  const std::shared_ptr<EventSink> sink_;

  // Of the running thread only.
  UpstreamAnswer answer_;
  bool begun_ = false;
  bool is_event_stream_ = false;
  std::string content_type_;
  std::string error_body_;  // of a response that is no event stream

  base::Mutex mu_;
  State state_ GUARDED_BY(mu_) = State::kWaiting;
  UpstreamConnection* connection_ GUARDED_BY(mu_) = nullptr;  // while state_ is kStreaming
  bool engine_stops_ GUARDED_BY(mu_) = false;
  bool cut_ GUARDED_BY(mu_) = false;  // the watcher has cut the connection
  SteadyClock::time_point linger_until_ GUARDED_BY(mu_) = SteadyClock::time_point::max();
};

}  // namespace runnel::inference
