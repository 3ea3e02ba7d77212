#include "bridges/wire/collected_generation.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace runnel::bridge {
namespace {

// More than any request can ask for; higher numbers are ignored, so that a faulty service cannot exhaust the memory.
constexpr uint32_t kMaxTrustedChoices = 64;
// As many as a choice can have.
constexpr uint32_t kMaxTrustedParts = 1024;
constexpr size_t kPartBytes = 128;  // of a part without its content

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
  tokens += delta.tokens();
  bytes += choice.Add(delta);
  const bool refusal = delta.kind() == v1::PART_KIND_REFUSAL;
  if (!choice.parts.empty()) choice.logprob_parts.resize(choice.logprobs.size(), 0);
  for (v1::TokenLogprob& logprob : *delta.mutable_logprobs()) {
    bytes += logprob.SpaceUsedLong();
    (refusal ? choice.refusal_logprobs : choice.logprobs).push_back(std::move(logprob));
    if (!refusal && !choice.parts.empty()) choice.logprob_parts.push_back(delta.part());
  }
}

size_t CollectedGeneration::Choice::Add(const v1::Delta& delta) {
  text += delta.text();
  const bool first_text = delta.part() == 0 && delta.kind() == v1::PART_KIND_TEXT;
  if ((first_text && parts.empty()) || delta.part() >= kMaxTrustedParts) return delta.text().size();
  const size_t parts_before = parts.size();
  if (parts.empty()) parts = AllParts();
  for (auto index = static_cast<uint32_t>(parts.size()); index <= delta.part(); ++index) {
    parts.emplace_back().set_index(index);
  }
  v1::PartText& part = parts[delta.part()];
  part.set_kind(delta.kind());
  if (delta.has_call()) {
    part.set_id(delta.call().id());
    part.set_name(delta.call().name());
  }
  part.mutable_content()->append(delta.kind() == v1::PART_KIND_TEXT ? delta.text() : delta.content());
  const size_t copied = parts_before == 0 ? parts.front().content().size() : 0;
  return copied + (parts.size() - parts_before) * kPartBytes + 2 * delta.text().size() + delta.content().size();
}

std::vector<v1::PartText> CollectedGeneration::Choice::AllParts() const {
  if (!parts.empty() || text.empty()) return parts;
  std::vector<v1::PartText> single(1);
  single.front().set_content(text);
  return single;
}

void CollectedGeneration::AddChoices(CollectedGeneration next, uint32_t first_choice) {
  choices.resize(first_choice);
  std::move(next.choices.begin(), next.choices.end(), std::back_inserter(choices));
  MergeDone(*next.done, first_choice, &*done);
}

}  // namespace runnel::bridge
