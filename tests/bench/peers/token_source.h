#pragma once

#include <cstdint>
#include <string>

namespace runnel::bench {

// The plan of a stream, which the load client puts into `metadata`.
struct TokenPlan {
  uint64_t seed = 1;
  uint32_t tokens = 0;
  double pace = 30;  // tokens per second
  double first_ms = 0;
  bool stepped = false;
  bool stalled = false;  // sends nothing after `started`
};

// Reads the plan from a body of POST /v1/generations. Scans for keys instead of parsing, because only the load client
// sends requests.
TokenPlan PlanOf(const std::string& body);

// Microseconds of CLOCK_MONOTONIC.
int64_t NowMicros();

// Generates the scripted engine's tokens in this process, as Runnel's JSON events, for peers without an inference
// service behind them.
class TokenSource {
 public:
  TokenSource(std::string generation_id, const TokenPlan& plan);

  const std::string& id() const { return id_; }
  // The time at which the next event is due; a very late time if there is none.
  int64_t due_us() const { return due_us_; }
  bool ended() const { return ended_; }
  uint64_t seq() const { return seq_; }  // of the last event appended

  // Appends the next event's JSON, `started` first, `done` last.
  void AppendNext(int64_t now_us, std::string* out);

 private:
  void AppendDelta(int64_t now_us, std::string* out);
  void AppendDone(int64_t now_us, std::string* out);

  const std::string id_;
  const TokenPlan plan_;
  const int64_t created_us_;
  int64_t first_due_us_ = 0;
  int64_t due_us_ = 0;
  uint64_t seq_ = 0;
  uint64_t text_bytes_ = 0;
  uint32_t crc32_ = 0;
  uint32_t next_ = 0;  // token
  bool ended_ = false;
};

}  // namespace runnel::bench
