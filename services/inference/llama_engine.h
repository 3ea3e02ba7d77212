#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/base/metrics.h"
#include "services/inference/engine.h"

namespace runnel::inference {

struct LlamaOptions {
  std::string model_path;  // a GGUF
  std::string model_id;    // empty: the file's name without .gguf

  uint32_t sequences = 8;    // choices decoded at once, 1 to kMaxLlamaSequences
  uint32_t context = 2048;   // prompt and answer of one choice together, in tokens; at most what the model was trained for
  uint32_t threads = 0;      // 0: as many as there are cores
  uint32_t prefill_rows = 32;  // prompt tokens in a step in which answers wait for their next token

  // KV cache in tokens, for all choices together. 0: sequences * context, so that nothing ever waits for it. With less,
  // a generation waits until there is room for its prompt and `reserve_tokens` of its answer (or max_tokens if that is
  // less), and if the cells run out all the same, the youngest gives way and goes on later.
  uint32_t kv_cells = 0;
  uint32_t reserve_tokens = UINT32_MAX;
  // Of these, how many may be kept of choices that have ended, for prompts that begin like them.
  uint32_t max_idle_cells = UINT32_MAX;

  // The same request and seed give the same text whatever else is decoded at the time, on one machine with one build.
  // It limits a batch to 60 rows and decodes a batch of one row on one thread, which costs speed; see the notes in
  // llama_engine.cc. Without it the texts differ now and then, where two tokens are about as likely.
  bool exact = true;

  // Empty: the model's own chat template, and chat is refused if it has none that llama.cpp knows. Otherwise the name of
  // one of llama.cpp's, such as chatml.
  std::string chat_template;
};

inline constexpr uint32_t kMaxLlamaSequences = 60;

// Loads a model and begins to decode. NotFound or InvalidArgument say what is wrong with file or options.
// `metrics` must outlive the engine.
absl::StatusOr<std::unique_ptr<Engine>> CreateLlamaEngine(const LlamaOptions& options, base::Metrics* metrics);

}  // namespace runnel::inference
