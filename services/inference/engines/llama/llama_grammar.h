#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/engines/llama/grammar_vocabulary.h"
#include "services/inference/engines/llama/lazy_grammar_filter.h"
#include "services/inference/engines/llama/llama_model.h"
#include "services/inference/engines/llama/token_filter.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// The grammar, in llama.cpp's GBNF, of the texts that have the format; empty for plain text. InvalidArgument, with the
// field, for a JSON Schema that cannot be expressed as a grammar.
absl::StatusOr<std::string> GrammarFor(const OutputFormat& format);

// A JSON Schema in the form that llama.cpp's converter supports, checked by converting it. InvalidArgument for `field`
// otherwise.
absl::StatusOr<std::string> ConvertibleSchema(const std::string& schema, const std::string& field);

// The model's tokens, shared by the filters of all outputs. `texts`: of control tokens that are a part of the output.
// Reads the whole vocabulary.
std::shared_ptr<const GrammarVocabulary> VocabularyFor(const LlamaModel& model, const ControlTexts& texts);

// A grammar for an output, in GBNF with the rule `root`.
struct GrammarRules {
  std::string grammar;
  std::string field;  // of the request, for errors
  // The text that the grammar begins with and that precedes the output.
  std::string before;
  // Not null: the grammar begins with a trigger, and `before` is not a part of it.
  std::shared_ptr<const GrammarTriggers> triggers;
};

// Creates a filter that holds an output to a grammar. Work on one token that takes longer than `step_timeout` exhausts
// the filter. InvalidArgument if it is not a grammar, or too complex.
absl::StatusOr<std::unique_ptr<TokenFilter>> CreateGrammarFilter(std::shared_ptr<const GrammarVocabulary> vocabulary,
                                                                 const GrammarRules& rules,
                                                                 absl::Duration step_timeout);

inline constexpr size_t kMaxGrammarBytes = 256 << 10;

}  // namespace runnel::inference
