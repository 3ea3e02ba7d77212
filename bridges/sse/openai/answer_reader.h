#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bridges/base/net.h"
#include "bridges/sse/stream/waiting_reader.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// A generation as one thing.
struct WholeAnswer {
  struct Choice {
    std::string text;
    std::vector<v1::TokenLogprob> logprobs;
  };
  v1::Started started;
  std::vector<Choice> choices;
  std::optional<v1::Done> done;  // one of the two once it has ended
  std::optional<v1::Failed> failed;
  uint32_t tokens = 0;  // over all choices
  size_t bytes = 0;     // about what it takes in memory

  // The next event of the log.
  void Add(v1::GenerationEvent& event);
  // Takes the choices of `next` as its own from `first_choice` on. Both have ended with `done`.
  void AddChoices(WholeAnswer next, uint32_t first_choice);
};

// For an answer that is given in one piece. Beyond `max_bytes` it stops reading.
class AnswerReader final : public WaitingReader {
 public:
  // `io` and `links` must outlive it.
  AnswerReader(bridge::net::io_context* io, bridge::LinkSet* links, size_t max_bytes)
      : WaitingReader(io, links), max_bytes_(max_bytes) {}

  const WholeAnswer& answer() const { return answer_; }
  WholeAnswer TakeAnswer() { return std::move(answer_); }
  bool too_large() const { return answer_.bytes > max_bytes_; }

  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;

 private:
  const size_t max_bytes_;
  WholeAnswer answer_;
};

}  // namespace runnel::sse
