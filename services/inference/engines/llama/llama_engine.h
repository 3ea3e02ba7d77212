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

  uint32_t sequences = 8;  // choices decoded at the same time, 1 to kMaxLlamaSequences
  // Prompt and output of one choice together, in tokens; limited to the context that the model was trained with.
  uint32_t context = 2048;
  // 0: one less than there are cores. llama.cpp's threads wait for each other by spinning, so if they share a core with
  // another busy thread, a step takes many times as long (8 tokens in 4 s instead of 0.3 s: two threads, two busy
  // cores).
  uint32_t threads = 0;
  uint32_t prefill_rows = 32;  // prompt tokens per step, while choices wait for their next token

  // The same request and seed give the same text, whatever else is or was decoded, on one kind of machine with one
  // build. Tested at the start, with a warning if it does not hold; it does for quantised models on CPUs. If false,
  // texts differ now and then, where two tokens are almost equally likely; prompts, and a single output, are decoded
  // faster. See llama_engine.cc.
  bool exact = true;
  // Only if not exact: KV cache in tokens, for all choices together. 0: sequences * context, so that no choice ever
  // waits for it. With less, a generation waits until there is room for its prompt and `reserve_tokens` of its output
  // (or max_tokens if that is less). If the cells run out nevertheless, the youngest choice loses its cells and
  // continues later.
  uint32_t kv_cells = 0;
  uint32_t reserve_tokens = UINT32_MAX;

  // Empty: the model's own chat template; chat requests are rejected if it has none. Otherwise the path of a file with
  // a Jinja template, or the name of one of llama.cpp's built-in templates, for example chatml.
  std::string chat_template;

  // Time limit for holding one token to an output format. A generation that exceeds it fails.
  absl::Duration grammar_step_timeout = absl::Milliseconds(100);
  // The beginning of a prompt, or a system message, whose KV cache is shared between principals. Must not be secret.
  std::string shared_preamble;
};

inline constexpr uint32_t kMaxLlamaSequences = 60;

// Loads a model and starts the decode thread. NotFound or InvalidArgument if the file or the options are wrong.
// `metrics` must outlive the engine.
absl::StatusOr<std::unique_ptr<Engine>> CreateLlamaEngine(const LlamaOptions& options, base::Metrics* metrics);

}  // namespace runnel::inference
