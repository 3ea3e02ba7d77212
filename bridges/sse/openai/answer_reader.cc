#include "bridges/sse/openai/answer_reader.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "bridges/sse/stream/prompt_group.h"

namespace runnel::sse {
namespace {

// What no request can ask for; a service that says more is not believed.
constexpr uint32_t kMaxChoices = 64;

}  // namespace

void WholeAnswer::Add(v1::GenerationEvent& event) {
  if (event.has_started()) started = std::move(*event.mutable_started());
  if (event.has_done()) done = std::move(*event.mutable_done());
  if (event.has_failed()) failed = std::move(*event.mutable_failed());
  if (!event.has_delta() || event.delta().choice() >= kMaxChoices) return;
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

void WholeAnswer::AddChoices(WholeAnswer next, uint32_t first_choice) {
  choices.resize(first_choice);
  std::move(next.choices.begin(), next.choices.end(), std::back_inserter(choices));
  MergeDone(*next.done, first_choice, &*done);
}

void AnswerReader::OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) {
  answer_.Add(event);
  if (too_large()) subscription->Pause();
}

}  // namespace runnel::sse
