#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// Merges `done` into `into`: appends its choices, numbered from `first_choice`, and adds up the usage.
void MergeDone(const v1::Done& done, uint32_t first_choice, v1::Done* into);

// All events of a generation in one value, for a response that is not streamed.
struct CollectedGeneration {
  struct Choice {
    // Returns the bytes that it takes.
    size_t Add(const v1::Delta& delta);
    // Every part as in `parts`, also a single text part.
    std::vector<v1::PartText> AllParts() const;

    std::string text;
    std::vector<v1::TokenLogprob> logprobs;  // of the text
    std::vector<uint32_t> logprob_parts;     // the part of each of these; empty while there is a single text part
    std::vector<v1::TokenLogprob> refusal_logprobs;
    std::vector<v1::PartText> parts;  // by index; empty for a single text part, which is `text`
  };
  v1::Started started;
  std::vector<Choice> choices;
  std::optional<v1::Done> done;  // this or `failed` once it has ended
  std::optional<v1::Failed> failed;
  uint32_t tokens = 0;  // over all choices
  size_t bytes = 0;     // approximate size in memory

  // Adds the next event of the log, which may be moved from.
  void Add(v1::GenerationEvent& event);
  // Appends the choices of `next`, numbered from `first_choice`. Both have ended with `done`.
  void AddChoices(CollectedGeneration next, uint32_t first_choice);
};

}  // namespace runnel::bridge
