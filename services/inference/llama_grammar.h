#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/inference/generation_request.h"
#include "services/inference/llama_model.h"
#include "services/inference/token_filter.h"

namespace runnel::inference {

// The grammar, in llama.cpp's GBNF, of texts that have the form; empty for plain text. InvalidArgument, with the field,
// for a JSON Schema that asks for what no grammar says.
absl::StatusOr<std::string> GrammarFor(const OutputFormat& format);

// Holds an answer to a grammar, whose rule `root` it begins with. InvalidArgument if it is no grammar, or too large.
absl::StatusOr<std::unique_ptr<TokenFilter>> CreateGrammarFilter(std::shared_ptr<const LlamaModel> model,
                                                                 const std::string& grammar);

}  // namespace runnel::inference
