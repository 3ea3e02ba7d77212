#pragma once

#include <cstdint>
#include <string>

namespace runnel::bench {

// What a stream is asked to say, as the load client puts it into `metadata`.
struct TokenPlan {
  uint64_t seed = 1;
  uint32_t tokens = 0;
  double pace = 30;  // tokens a second
  double first_ms = 0;
  bool stepped = false;
  bool stalled = false;  // says `started` and nothing more
};

// Reads the plan from a body of POST /v1/generations. Looks for keys and is no parser: only the load client asks.
TokenPlan PlanOf(const std::string& body);

// Microseconds of CLOCK_MONOTONIC.
int64_t NowMicros();

// Makes the tokens that the scripted engine would make, as the JSON events that Runnel would send, in the process: for
// peers that have no inference service behind them.
class TokenSource {
 public:
  TokenSource(std::string generation_id, const TokenPlan& plan);

  const std::string& id() const { return id_; }
  // When the next event is due; a very late time if there is none.
  int64_t due_us() const { return due_us_; }
  bool ended() const { return ended_; }
  uint64_t seq() const { return seq_; }  // of the last event made

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
