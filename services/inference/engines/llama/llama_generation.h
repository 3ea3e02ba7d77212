#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/inference/engines/llama/choice_output.h"
#include "services/inference/engines/llama/sampler.h"
#include "services/inference/engines/llama/token_filter.h"
#include "services/inference/engines/logged_output.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

struct LlamaGeneration;
struct LlamaJob;

// One choice: its tokens, and what follows from them. Used by the decode thread only, once it is started.
struct LlamaChoice {
  // `sink` must outlive it; null: set later.
  LlamaChoice(uint32_t number, const LlamaJob& job, EventSink* sink);

  LlamaGeneration* generation = nullptr;
  const uint32_t index;
  std::vector<int32_t> tokens;  // prompt and output, with an end token
  ChoiceOutput output;
  Sampler sampler;
  std::optional<uint32_t> slot;  // while it runs
  uint32_t drawn = 0;            // tokens of the output, without an end token
  bool ended = false;
  bool slow_filter = false;  // at its last token
  uint64_t last_drawn = 0;   // the batch of its last token

  // Of a choice that is continued.
  uint32_t restored = 0;  // of drawn
  bool ended_in_log = false;
  std::vector<ReplaySink::Rest> rest;  // what the log lacks of these tokens
  std::optional<FinishReason> ending;  // it gets no further tokens, and ends after the rest
};

// A request for the scheduler.
struct LlamaJob {
  std::vector<int32_t> prompt;  // not empty, shorter than the context
  std::string principal;        // the owner: see LlamaSlots
  SamplerOptions sampler;
  uint64_t seed = 0;
  uint32_t max_tokens = 1;
  uint32_t choice_count = 1;
  OutputRules output;
  std::optional<uint32_t> top_logprobs;       // absent: none
  std::shared_ptr<const TokenFilter> filter;  // null: any text; cloned for each choice

  // Of a generation that is continued from a log with output: see ContinueFromLog. Otherwise null.
  struct Continuation {
    std::vector<std::unique_ptr<LlamaChoice>> choices;
    Usage usage;  // of the log
    // Tokens of choices that have ended, which the usage has and no delta.
    uint32_t uncounted_tokens = 0;
  };
  std::shared_ptr<Continuation> continuation;
};

struct LlamaGeneration {
  LlamaGeneration(LlamaJob from, std::shared_ptr<EventSink> to);

  bool ended() const;
  // Of outputs with a syntax. All tokens of choices that have ended count, also those of the syntax; of others, those
  // that were appended.
  Usage CountedUsage() const;

  const std::vector<std::unique_ptr<LlamaChoice>> choices;
  const LlamaJob job;  // without the continuation's choices
  const std::shared_ptr<EventSink> sink;
  const bool reports_ids;
  bool to_continue = false;  // what the continuation's choices lack is to be appended
  uint32_t prompt_tokens = 0;
  uint32_t cached_prompt_tokens = 0;
};

}  // namespace runnel::inference
