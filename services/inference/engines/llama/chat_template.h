#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/engines/llama/chat_output.h"
#include "services/inference/engines/llama/lazy_grammar_filter.h"
#include "services/inference/engines/llama/llama_model.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// A conversation in the model's own format, and what the model's turn has to look like.
struct ChatPrompt {
  std::vector<PromptSegment> segments;
  std::string grammar;  // in GBNF; empty: that of the output format, if there is one
  std::string grammar_field;
  std::string generation_prompt;                    // the end of the prompt, with which the grammar begins
  std::shared_ptr<const GrammarTriggers> triggers;  // null: the grammar holds all of the output
  std::vector<std::string> stops;
  std::vector<std::string> preserved;          // control tokens whose text is a part of the output
  std::shared_ptr<const OutputSyntax> syntax;  // null: all of the output is text
};

// Turns conversations into prompts. Immutable: every method may be called on any thread.
class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;

  // `choice`: see LlamaOptions::chat_template. InvalidArgument if it is neither a name nor a file with a template. If
  // the model has no template, or one with errors, Render fails.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Create(const LlamaModel& model, const std::string& choice);

  // InvalidArgument if there is no template, if it rejects the messages, or if tools cannot be called as requested. The
  // time depends on the size of the request, which the caller limits.
  virtual absl::StatusOr<ChatPrompt> Render(const GenerationRequest& request) const = 0;

  // Changes whenever the same request may give another prompt.
  virtual std::string identity() const = 0;
};

}  // namespace runnel::inference
