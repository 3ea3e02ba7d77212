#include "bridges/wire/collected_generation.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace runnel::bridge {
namespace {

// More than any request can ask for; higher numbers are ignored, so that a faulty service cannot exhaust the memory.
constexpr uint32_t kMaxTrustedChoices = 64;

}  // namespace

void MergeDone(const v1::Done& done, uint32_t first_choice, v1::Done* into) {
  for (const v1::ChoiceEnd& end : done.choices()) {
    v1::ChoiceEnd* merged = into->add_choices();
    *merged = end;
    merged->set_index(first_choice + end.index());
  }
  v1::Usage* sum = into->mutable_usage();
  sum->set_prompt_tokens(sum->prompt_tokens() + done.usage().prompt_tokens());
  sum->set_completion_tokens(sum->completion_tokens() + done.usage().completion_tokens());
  sum->set_cached_prompt_tokens(sum->cached_prompt_tokens() + done.usage().cached_prompt_tokens());
  sum->set_reasoning_tokens(sum->reasoning_tokens() + done.usage().reasoning_tokens());
}

void CollectedGeneration::Add(v1::GenerationEvent& event) {
  if (event.has_started()) started = std::move(*event.mutable_started());
  if (event.has_done()) done = std::move(*event.mutable_done());
  if (event.has_failed()) failed = std::move(*event.mutable_failed());
  if (!event.has_delta() || event.delta().choice() >= kMaxTrustedChoices) return;
  v1::Delta& delta = *event.mutable_delta();
  if (delta.choice() >= choices.size()) choices.resize(delta.choice() + 1);
  Choice& choice = choices[delta.choice()];
  choice.text += delta.text();
  tokens += delta.tokens();
  bytes += delta.text().size();
  for (v1::TokenLogprob& logprob : *delta.mutable_logprobs()) {
    bytes += logprob.SpaceUsedLong();
    choice.logprobs.push_back(std::move(logprob));
  }
}

void CollectedGeneration::AddChoices(CollectedGeneration next, uint32_t first_choice) {
  choices.resize(first_choice);
  std::move(next.choices.begin(), next.choices.end(), std::back_inserter(choices));
  MergeDone(*next.done, first_choice, &*done);
}

}  // namespace runnel::bridge
