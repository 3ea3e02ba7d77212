#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/engines/llama/grammar_vocabulary.h"
#include "services/inference/engines/llama/llama_model.h"
#include "services/inference/engines/llama/token_filter.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

// The grammar, in llama.cpp's GBNF, of the texts that have the format; empty for plain text. InvalidArgument, with the
// field, for a JSON Schema that cannot be expressed as a grammar.
absl::StatusOr<std::string> GrammarFor(const OutputFormat& format);

// The model's tokens, shared by the filters of all outputs. Reads the whole vocabulary.
std::shared_ptr<const GrammarVocabulary> VocabularyFor(const LlamaModel& model);

// Creates a filter that holds an output to a grammar, starting with its rule `root`. Work on one token that takes
// longer than `step_timeout` exhausts the filter. InvalidArgument if `grammar` is not a grammar, or too complex.
absl::StatusOr<std::unique_ptr<TokenFilter>> CreateGrammarFilter(std::shared_ptr<const GrammarVocabulary> vocabulary,
                                                                 const std::string& grammar,
                                                                 absl::Duration step_timeout);

}  // namespace runnel::inference
