#include "services/inference/engines/llama/llama_generation.h"

#include <algorithm>
#include <utility>

namespace runnel::inference {
namespace {

std::vector<std::unique_ptr<LlamaChoice>> ChoicesOf(LlamaJob* job) {
  if (job->continuation != nullptr) return std::move(job->continuation->choices);
  std::vector<std::unique_ptr<LlamaChoice>> choices;
  for (uint32_t i = 0; i < job->choice_count; ++i) choices.push_back(std::make_unique<LlamaChoice>(i, *job, nullptr));
  return choices;
}

}  // namespace

LlamaChoice::LlamaChoice(uint32_t number, const LlamaJob& job, EventSink* sink)
    : index(number),
      tokens(job.prompt),
      output(number, job.output, sink),
      sampler(job.sampler, job.seed, number, job.filter == nullptr ? nullptr : job.filter->Clone()) {}

LlamaGeneration::LlamaGeneration(LlamaJob from, std::shared_ptr<EventSink> to)
    : choices(ChoicesOf(&from)),
      job(std::move(from)),
      sink(std::move(to)),
      reports_ids(sink->wants_token_ids()),
      to_continue(job.continuation != nullptr),
      prompt_tokens(static_cast<uint32_t>(job.prompt.size())) {
  if (to_continue) {
    prompt_tokens = job.continuation->usage.prompt_tokens;
    cached_prompt_tokens = job.continuation->usage.cached_prompt_tokens;
  }
  for (const auto& choice : choices) {
    choice->generation = this;
    choice->output.SendTo(sink.get());
    if (reports_ids) choice->output.SetTokenIds(&choice->tokens);
  }
}

bool LlamaGeneration::ended() const {
  return std::all_of(choices.begin(), choices.end(), [](const auto& choice) { return choice->ended; });
}

Usage LlamaGeneration::CountedUsage() const {
  Usage usage{prompt_tokens, 0, cached_prompt_tokens, 0};
  if (job.continuation != nullptr) usage.completion_tokens = job.continuation->uncounted_tokens;
  for (const auto& choice : choices) {
    const bool whole = choice->ended && !choice->ended_in_log;
    usage.completion_tokens += whole ? choice->output.tokens() : choice->output.appended_tokens();
    usage.reasoning_tokens += choice->output.reasoning_tokens();
  }
  return usage;
}

}  // namespace runnel::inference
