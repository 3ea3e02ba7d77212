#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// Adds what `done` says to `into`: its choices as those from `first_choice` on, its usage to the sum.
void MergeDone(const v1::Done& done, uint32_t first_choice, v1::Done* into);

// All events of a generation in one value, for a response that is not streamed.
struct CollectedGeneration {
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
  void AddChoices(CollectedGeneration next, uint32_t first_choice);
};

}  // namespace runnel::bridge
