#include "services/inference/llama_grammar.h"

#include <llama.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/strings.h"
#include "services/inference/schema_pattern.h"
#if RUNNEL_HAVE_JSON_SCHEMA
#include <llama_json_schema.h>
#endif

namespace runnel::inference {
namespace {

constexpr char kSchemaField[] = "output_format.json_schema";
constexpr size_t kMaxGrammarBytes = 256 << 10;

// RFC 8259, but for blanks: without a bound a small model may write nothing else.
constexpr char kJsonObjectGrammar[] = R"(root ::= object
object ::= "{" blank ( string blank ":" blank value blank ( "," blank string blank ":" blank value blank )* )? "}"
array ::= "[" blank ( value blank ( "," blank value blank )* )? "]"
value ::= object | array | string | number | "true" | "false" | "null"
string ::= "\"" ( [^"\\\x00-\x1F\x7F] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} ) )* "\""
number ::= "-"? ( "0" | [1-9] [0-9]{0,15} ) ( "." [0-9]{1,16} )? ( [eE] [-+]? [0-9]{1,3} )?
blank ::= | " " | "\n" [ \t]{0,20}
)";

#if RUNNEL_HAVE_JSON_SCHEMA
// Of an item, as in x{2,5}. llama.cpp prints a grammar with more and refuses it, or takes the larger number for "any".
constexpr uint64_t kMaxRepetitions = 2000;

bool RepeatsTooOften(std::string_view grammar) {
  char closing = 0;  // of the literal or the class that it is in
  bool counts = false;
  uint64_t number = 0;
  for (size_t i = 0; i < grammar.size(); ++i) {
    const char c = grammar[i];
    if (closing != 0) {
      if (c == '\\') ++i;
      if (c == closing) closing = 0;
    } else if (counts && c >= '0' && c <= '9') {
      number = std::min(number * 10 + static_cast<uint64_t>(c - '0'), kMaxRepetitions + 1);
      if (number > kMaxRepetitions) return true;
    } else {
      counts = c == '{' || (counts && c == ',');
      number = 0;
      if (c == '"' || c == '[') closing = c == '"' ? '"' : ']';
    }
  }
  return false;
}

// What the converter says, without what it says of itself.
std::string_view WhyNot(std::string_view message) {
  for (const std::string_view prefix :
       {"WARNING: ", "JSON schema conversion was incomplete: ", "JSON schema conversion failed:\n"}) {
    if (message.substr(0, prefix.size()) == prefix) message.remove_prefix(prefix.size());
  }
  constexpr std::string_view kInstead = ", accepting any";
  message = message.substr(0, message.find(kInstead));
  return message.substr(0, message.find('\n'));
}

absl::StatusOr<std::string> GrammarForSchema(const std::string& schema) {
  try {
    std::string grammar = llama_json_schema_to_grammar(WithPlainPatterns(schema));
    if (grammar.size() <= kMaxGrammarBytes && !RepeatsTooOften(grammar)) return grammar;
    return base::InvalidField(kSchemaField, absl::StrCat("asks for too much: its grammar has more than ",
                                                         kMaxGrammarBytes, " bytes, or some number is above ",
                                                         kMaxRepetitions));
  } catch (const std::exception& e) {
    return base::InvalidField(kSchemaField, absl::StrCat("is not supported: ", base::ToAbsl(WhyNot(e.what()))));
  }
}
#else
absl::StatusOr<std::string> GrammarForSchema(const std::string&) {
  return base::InvalidField(kSchemaField, "this build has no JSON Schemas, only json_object");
}
#endif

class GrammarFilter final : public TokenFilter {
 public:
  GrammarFilter(std::shared_ptr<const LlamaModel> model, const llama_vocab* vocabulary, llama_sampler* sampler)
      : model_(std::move(model)), vocabulary_(vocabulary), sampler_(sampler) {}
  ~GrammarFilter() override { llama_sampler_free(sampler_); }
  GrammarFilter(const GrammarFilter&) = delete;
  GrammarFilter& operator=(const GrammarFilter&) = delete;

  std::unique_ptr<TokenFilter> Clone() const override {
    return std::make_unique<GrammarFilter>(model_, vocabulary_, llama_sampler_clone(sampler_));
  }

  bool Allows(int32_t token) override {
    if (!MayBeText(token)) return false;
    candidates_.assign(1, {token, 0, 0});
    RunSampler();
    return std::isfinite(candidates_[0].logit);
  }

  void Apply(std::span<float> logits) override {
    candidates_.clear();
    for (size_t i = 0; i < logits.size(); ++i) {
      const auto token = static_cast<int32_t>(i);
      if (MayBeText(token)) {
        candidates_.push_back({token, 0, 0});
      } else {
        logits[i] = kForbidden;
      }
    }
    RunSampler();
    for (const llama_token_data& each : candidates_) {
      if (!std::isfinite(each.logit)) logits[static_cast<size_t>(each.id)] = kForbidden;
    }
  }

  void Accept(int32_t token) override {
    try {
      if (!broken_) llama_sampler_accept(sampler_, token);
    } catch (const std::exception&) {
      // Its state is not to be used any more: llama.cpp would abort. The message quotes the answer.
      spdlog::error("the grammar of an answer refuses a token that it had allowed");
      broken_ = true;
    }
  }

 private:
  static constexpr float kForbidden = -std::numeric_limits<float>::infinity();

  // llama.cpp's grammar takes a control token for the letters that it is spelled with, of which the text gets none.
  bool MayBeText(int32_t token) const {
    return !broken_ && (!llama_vocab_is_control(vocabulary_, token) || llama_vocab_is_eog(vocabulary_, token));
  }
  void RunSampler() {
    llama_token_data_array array{candidates_.data(), candidates_.size(), -1, false};
    if (!candidates_.empty()) llama_sampler_apply(sampler_, &array);
  }

  const std::shared_ptr<const LlamaModel> model_;  // owns vocabulary_
  const llama_vocab* const vocabulary_;
  llama_sampler* const sampler_;
  std::vector<llama_token_data> candidates_;
  bool broken_ = false;
};

}  // namespace

absl::StatusOr<std::string> GrammarFor(const OutputFormat& format) {
  switch (format.kind) {
    case OutputFormat::Kind::kText:
      return std::string();
    case OutputFormat::Kind::kJsonObject:
      return std::string(kJsonObjectGrammar);
    case OutputFormat::Kind::kJsonSchema:
      break;
  }
  return GrammarForSchema(format.json_schema);
}

absl::StatusOr<std::unique_ptr<TokenFilter>> CreateGrammarFilter(std::shared_ptr<const LlamaModel> model,
                                                                 const std::string& grammar) {
  const llama_vocab* const vocabulary = model->vocabulary();
  try {
    // It returns null for what it cannot read; a limit that it meets may be an exception.
    llama_sampler* const sampler = llama_sampler_init_grammar(vocabulary, grammar.c_str(), "root");
    if (sampler != nullptr) return std::make_unique<GrammarFilter>(std::move(model), vocabulary, sampler);
  } catch (const std::exception&) {
  }
  return base::InvalidField(kSchemaField, "asks for too much: llama.cpp does not take its grammar");
}

}  // namespace runnel::inference
