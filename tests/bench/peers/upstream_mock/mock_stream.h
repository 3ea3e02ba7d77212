#pragma once

#include <cstdint>
#include <string>

#include "tests/bench/peers/upstream_mock/mock_request.h"

namespace runnel::bench {

// Generates the events of one response like vLLM: a chunk with the role (chat only), one chunk per token, one with the
// finish reason, one with the usage if it was requested, and [DONE]. The last three follow the last token immediately.
class MockStream {
 public:
  // `number` is the number of the request, which makes the id.
  MockStream(const MockRequest& request, uint64_t number, int64_t received_us);

  // Appends what precedes the first token: at most one event.
  void AppendStart(std::string* out);
  // Appends the next token, and the end after the last one. Do not call after ended().
  void AppendNext(int64_t now_us, std::string* out);
  // When the next token is due.
  int64_t due_us() const;
  bool ended() const { return ended_; }

 private:
  void AppendChunk(std::string_view choice, std::string* out) const;
  void AppendDelta(const NumberedToken& token, std::string* out) const;
  // Which quarter a token is in, if the plan has parts.
  uint32_t PartOf(uint32_t token) const;

  const MockRequest request_;
  const int64_t received_us_;
  double interval_us_ = 0;
  double first_due_us_ = 0;
  std::string head_;  // of each chunk
  uint32_t next_ = 0;
  bool ended_ = false;
};

}  // namespace runnel::bench
