#pragma once

#include <string>
#include <string_view>

#include "tests/bench/load/sse_codec.h"

namespace runnel::bench {

// The chunks of a streamed chat completion. They have no numbers: the first one counts as `started`, each with text as
// a delta with the next seq, and [DONE] as `done`. What is lost shows in the numbers of the tokens; see TokenCheck.
class ChatCodec final : public SseCodec {
 public:
  explicit ChatCodec(std::string opening) : SseCodec(std::move(opening), /*opened_by_head=*/false) {}

 protected:
  std::string OnData(std::string_view data, Sink* sink) override;

 private:
  // False if the chunk has no output.
  bool ReadTokens(std::string_view data);
  void Emit(Event::Kind kind, uint64_t count, Sink* sink);

  bool started_ = false;
  bool finished_ = false;
  uint64_t usage_tokens_ = 0;
  std::string reason_;
};

}  // namespace runnel::bench
