#include "services/inference/engines/llama/llama_grammar.h"

#include <chrono>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/inference/engines/llama/grammar.h"
#include "services/inference/engines/llama/grammar_filter.h"
#include "services/inference/engines/llama/grammar_matcher.h"
#include "services/inference/engines/llama/schema_limits.h"
#include "services/inference/engines/llama/schema_pattern.h"
#if RUNNEL_HAVE_JSON_SCHEMA
#include <llama_json_schema.h>
#endif

namespace runnel::inference {
namespace {

constexpr char kSchemaField[] = "output_format.json_schema";
// The time limit of CheckGrammar. Most grammars take less than a millisecond.
constexpr absl::Duration kCheckTimeout = absl::Seconds(1);

// RFC 8259 with a limit on blanks: without one, a small model may write nothing but blanks.
constexpr char kJsonObjectGrammar[] = R"(root ::= object
object ::= "{" blank ( string blank ":" blank value blank ( "," blank string blank ":" blank value blank )* )? "}"
array ::= "[" blank ( value blank ( "," blank value blank )* )? "]"
value ::= object | array | string | number | "true" | "false" | "null"
string ::= "\"" ( [^"\\\x00-\x1F\x7F] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} ) )* "\""
number ::= "-"? ( "0" | [1-9] [0-9]{0,15} ) ( "." [0-9]{1,16} )? ( [eE] [-+]? [0-9]{1,3} )?
blank ::= | " " | "\n" [ \t]{0,20}
)";

#if RUNNEL_HAVE_JSON_SCHEMA
// The reason in a message of the converter, without its prefixes.
std::string_view ReasonIn(std::string_view message) {
  for (const std::string_view prefix :
       {"WARNING: ", "JSON schema conversion was incomplete: ", "JSON schema conversion failed:\n"}) {
    if (message.substr(0, prefix.size()) == prefix) message.remove_prefix(prefix.size());
  }
  constexpr std::string_view kInstead = ", accepting any";
  message = message.substr(0, message.find(kInstead));
  return message.substr(0, message.find('\n'));
}

// Sets `plain` to the schema that is converted.
absl::StatusOr<std::string> GrammarForSchema(const std::string& schema, const std::string& field, std::string* plain) {
  *plain = WithPlainPatterns(schema);
  if (const absl::Status limits = CheckSchemaLimits(*plain); !limits.ok()) {
    return base::InvalidField(field, std::string(limits.message()));
  }
  try {
    const std::string grammar = llama_json_schema_to_grammar(*plain);
    if (grammar.size() <= kMaxGrammarBytes) return grammar;
    return base::InvalidField(field, absl::StrCat("is too large: its grammar has ", grammar.size(), " bytes, at most ",
                                                  kMaxGrammarBytes, " are allowed"));
  } catch (const std::exception& e) {
    return base::InvalidField(field, absl::StrCat("is not supported: ", base::ToAbsl(ReasonIn(e.what()))));
  }
}
#else
absl::StatusOr<std::string> GrammarForSchema(const std::string&, const std::string& field, std::string*) {
  return base::InvalidField(field, "is not supported by this build: use json_object");
}
#endif

absl::Status TooComplex(const std::string& field, const absl::Status& status) {
  return base::InvalidField(field, status.code() == absl::StatusCode::kResourceExhausted
                                       ? absl::StrCat("is too complex: it has ", status.message())
                                       : std::string(status.message()));
}

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
  std::string plain;
  return GrammarForSchema(format.json_schema, kSchemaField, &plain);
}

absl::StatusOr<std::string> ConvertibleSchema(const std::string& schema, const std::string& field) {
  std::string plain;
  RETURN_IF_ERROR(GrammarForSchema(schema, field, &plain).status());
  return plain;
}

std::shared_ptr<const GrammarVocabulary> VocabularyFor(const LlamaModel& model, const ControlTexts& texts) {
  std::vector<std::string> pieces(model.vocabulary_size());
  std::vector<int32_t> ends;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto token = static_cast<int32_t>(i);
    if (model.IsEnd(token)) {
      ends.push_back(token);
    } else {
      pieces[i] = model.Piece(token);
    }
  }
  for (const auto& [token, text] : texts) {
    if (!model.IsEnd(token)) pieces[static_cast<size_t>(token)] = text;
  }
  return std::make_shared<const GrammarVocabulary>(pieces, std::move(ends));
}

absl::StatusOr<std::unique_ptr<TokenFilter>> CreateGrammarFilter(std::shared_ptr<const GrammarVocabulary> vocabulary,
                                                                 const GrammarRules& rules,
                                                                 absl::Duration step_timeout) {
  auto parsed = Grammar::Parse(rules.grammar);
  if (!parsed.ok()) return TooComplex(rules.field, parsed.status());
  const auto grammar = std::make_shared<const Grammar>(*std::move(parsed));
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(kCheckTimeout);
  if (const absl::Status check = CheckGrammar(grammar, deadline); !check.ok()) return TooComplex(rules.field, check);
  GrammarFilter filter(grammar, vocabulary, absl::ToChronoNanoseconds(step_timeout));
  const bool lazy = rules.triggers != nullptr;
  const bool begins = lazy || rules.before.empty() || filter.AcceptText(rules.before);
  if (filter.exhausted()) {
    return base::InvalidField(rules.field, "is too complex: simplify its repetitions and alternatives");
  }
  if (!begins) return base::InvalidField(rules.field, "does not fit the model's chat template");
  if (!lazy) return std::make_unique<GrammarFilter>(std::move(filter));
  return std::make_unique<LazyGrammarFilter>(std::move(filter), std::move(vocabulary), rules.triggers, rules.before);
}

}  // namespace runnel::inference
