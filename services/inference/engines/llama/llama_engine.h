#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/metrics.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

struct LlamaOptions {
  std::string model_path;  // a GGUF
  std::string model_id;    // empty: the file's name without .gguf

  uint32_t sequences = 8;  // choices decoded at once, 1 to kMaxLlamaSequences
  // Prompt and answer of one choice together, in tokens; at most what the model was trained for.
  uint32_t context = 2048;
  // 0: one less than there are cores. llama.cpp's threads wait for each other by spinning, so where they share a core
  // with anything busy, a step takes many times as long (8 tokens in 4 s and not in 0.3: two threads, two busy cores).
  uint32_t threads = 0;
  uint32_t prefill_rows = 32;  // prompt tokens in a step in which answers wait for their next token

  // The same request and seed give the same text, whatever else is decoded at the time and whatever was before, on one
  // kind of machine with one build. Tried at the start, and a warning logged if it does not hold: it does for
  // quantised models on CPUs. Without it texts differ now and then, where two tokens are about as likely; prompts are
  // read faster, and so is a single answer. See llama_engine.cc.
  bool exact = true;
  // Only if not exact: KV cache in tokens, for all choices together. 0: sequences * context, so that nothing ever waits
  // for it. With less, a generation waits until there is room for its prompt and `reserve_tokens` of its answer (or
  // max_tokens if that is less), and if the cells run out all the same, the youngest gives way and goes on later.
  uint32_t kv_cells = 0;
  uint32_t reserve_tokens = UINT32_MAX;

  // Empty: the model's own chat template, and chat is refused if it has none that llama.cpp knows. Otherwise the name
  // of one of llama.cpp's, such as chatml.
  std::string chat_template;

  // Work for one token of an answer that is held to a format. A generation that needs longer fails.
  absl::Duration grammar_step_timeout = absl::Milliseconds(100);
  // The beginning of a prompt, or a system message, whose KV cache principals share. Nobody may put a secret there.
  std::string shared_preamble;
};

inline constexpr uint32_t kMaxLlamaSequences = 60;

// Loads a model and begins to decode. NotFound or InvalidArgument say what is wrong with file or options.
// `metrics` must outlive the engine.
absl::StatusOr<std::unique_ptr<Engine>> CreateLlamaEngine(const LlamaOptions& options, base::Metrics* metrics);

}  // namespace runnel::inference
