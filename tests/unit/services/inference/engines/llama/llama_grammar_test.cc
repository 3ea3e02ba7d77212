#include "services/inference/engines/llama/llama_grammar.h"

#include <gtest/gtest.h>
#include <llama.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/engines/llama/sampler.h"
#include "tests/testing/bigram_model.h"

namespace runnel::inference {
namespace {

constexpr char kField[] = "output_format.json_schema";

class LlamaGrammarTest : public ::testing::Test {
 protected:
  LlamaGrammarTest() {
    EXPECT_TRUE(testing::BigramModel().WriteTo(path_));
    auto model = LlamaModel::Load(path_);
    EXPECT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    vocabulary_ = VocabularyFor(*model_, {});
  }
  ~LlamaGrammarTest() override { std::filesystem::remove(path_); }

  absl::StatusOr<std::unique_ptr<TokenFilter>> FilterFor(const OutputFormat& format) {
    auto grammar = GrammarFor(format);
    if (!grammar.ok()) return grammar.status();
    return CreateGrammarFilter(vocabulary_, {*grammar, kField, "", nullptr}, absl::Seconds(10));
  }
  absl::StatusOr<std::unique_ptr<TokenFilter>> FilterFor(const std::string& schema) {
    return FilterFor({OutputFormat::Kind::kJsonSchema, schema});
  }

  const std::string path_ = ::testing::TempDir() + "/runnel_grammar.gguf";
  std::shared_ptr<const LlamaModel> model_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
};

// llama.cpp's matcher, which has no budgets.
class Reference {
 public:
  Reference(const LlamaModel& model, const std::string& grammar)
      : model_(model), sampler_(llama_sampler_init_grammar(model.vocabulary(), grammar.c_str(), "root")) {}
  ~Reference() { llama_sampler_free(sampler_); }
  std::vector<bool> Allowed() {
    std::vector<llama_token_data> all;
    std::vector<bool> allowed(model_.vocabulary_size());
    for (int32_t token = 0; token < static_cast<int32_t>(allowed.size()); ++token) {
      // It accepts control tokens by their names, which have no text here.
      if (model_.IsEnd(token) || !model_.Piece(token).empty()) all.push_back({token, 0, 0});
    }
    llama_token_data_array array{all.data(), all.size(), -1, false};
    llama_sampler_apply(sampler_, &array);
    for (const auto& each : all) allowed[static_cast<size_t>(each.id)] = std::isfinite(each.logit);
    return allowed;
  }
  void Accept(int32_t token) { llama_sampler_accept(sampler_, token); }

 private:
  const LlamaModel& model_;
  llama_sampler* const sampler_;
};

std::vector<bool> Allowed(TokenFilter* filter, uint32_t vocabulary) {
  std::vector<float> logits(vocabulary, 0);
  filter->Apply(logits);
  std::vector<bool> allowed;
  for (uint32_t token = 0; token < vocabulary; ++token) {
    allowed.push_back(std::isfinite(logits[token]));
    EXPECT_EQ(filter->Allows(static_cast<int32_t>(token)), allowed.back()) << token;
  }
  return allowed;
}

TEST_F(LlamaGrammarTest, AllowsWhatLlamaCppAllows) {
  const OutputFormat formats[] = {
      {OutputFormat::Kind::kJsonObject, ""},
      {OutputFormat::Kind::kJsonSchema, "{}"},
      {OutputFormat::Kind::kJsonSchema, R"({"type":"string","pattern":"^[a-c]{2,5}(foo|bär|🌊)+\\.x?$"})"},
      {OutputFormat::Kind::kJsonSchema, R"({"type":"string","pattern":"^((a?){3}){3}$"})"},
      {OutputFormat::Kind::kJsonSchema, R"({"type":"string","minLength":2,"maxLength":4})"},
      {OutputFormat::Kind::kJsonSchema, R"({"type":"integer","minimum":-13,"maximum":207})"},
      {OutputFormat::Kind::kJsonSchema, R"({"enum":["Übung","über","\"x\"",1,null,true]})"},
      {OutputFormat::Kind::kJsonSchema,
       R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x","yé"]},"c":{"type":"array","maxItems":2,
        "items":{"anyOf":[{"type":"string","maxLength":2},{"type":"null"}]}}},"required":["a"]})"},
      {OutputFormat::Kind::kJsonSchema,
       R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"n":{"$ref":"#/$defs/n"}},"required":[]}}})"},
      {OutputFormat::Kind::kJsonSchema, R"({"type":"string","format":"date-time"})"},
  };
  for (const OutputFormat& format : formats) {
    const auto grammar = GrammarFor(format);
    ASSERT_TRUE(grammar.ok()) << grammar.status();
    for (uint64_t seed = 0; seed < 6; ++seed) {
      Reference reference(*model_, *grammar);
      auto filter =
          CreateGrammarFilter(vocabulary_, {*grammar, kField, "", nullptr}, absl::Seconds(10)).value()->Clone();
      for (uint32_t step = 0; step < 60; ++step) {
        const auto allowed = Allowed(filter.get(), model_->vocabulary_size());
        const auto expected = reference.Allowed();
        for (size_t token = 0; token < allowed.size(); ++token) {
          // It is not strict about UTF-8.
          const std::string piece = model_->Piece(static_cast<int32_t>(token));
          if (!allowed[token] && !piece.empty() && static_cast<uint8_t>(piece[0]) >= 0x80) continue;
          ASSERT_EQ(allowed[token], expected[token])
              << *grammar << " seed " << seed << " step " << step << ": " << piece;
        }
        std::vector<int32_t> choices;
        for (size_t token = 0; token < allowed.size(); ++token) {
          if (allowed[token] && !model_->IsEnd(static_cast<int32_t>(token)))
            choices.push_back(static_cast<int32_t>(token));
        }
        if (choices.empty()) break;
        const int32_t chosen =
            choices[static_cast<size_t>(RandomUnit(seed, 0, step) * static_cast<double>(choices.size()))];
        filter->Accept(chosen);
        reference.Accept(chosen);
      }
      EXPECT_FALSE(filter->exhausted());
    }
  }
}

TEST_F(LlamaGrammarTest, HostileSchemasAreRejectedInTime) {
  std::string deep = R"({"type":"string"})";
  for (int i = 0; i < 20; ++i) deep = absl::StrCat(R"({"type":"array","maxItems":2000,"items":)", deep, "}");
  std::string fan = R"({"type":"string"})";
  for (int i = 0; i < 10; ++i) fan = absl::StrCat(R"({"anyOf":[)", fan, ",", fan, "]}");
  std::string optional = R"({"properties":{)";
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&optional, i == 0 ? "" : ",", "\"p", i, "\":{}");
  optional += "}}";
  std::string braces;
  for (int i = 0; i < 3000; ++i) braces += "a{2000}";
  const std::string rows[] = {
      R"({"type":"string","pattern":"^((a?){2000}){2000}$"})",
      R"({"type":"string","pattern":"^(((a?){200}){200}){200}$"})",
      absl::StrCat(R"({"type":"string","pattern":"^)", braces, R"($"})"),
      absl::StrCat(R"({"type":"string","pattern":"^)", std::string(15'000, '('), "a", std::string(15'000, ')'),
                   R"($"})"),
      deep,
      optional,
      R"({"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/a"}}})",
      R"({"anyOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"}]}}})",
      R"({"type":"string","minLength":1000000000})",
  };
  for (const std::string& schema : rows) {
    const auto begin = std::chrono::steady_clock::now();
    const absl::Status status = FilterFor(schema).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << schema.substr(0, 100);
    EXPECT_EQ(base::DetailOf(status).field, "output_format.json_schema") << schema.substr(0, 100);
    // A limit for failures: normally they take milliseconds.
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5)) << schema.substr(0, 100);
  }
}

TEST_F(LlamaGrammarTest, AFilterWithoutTimeIsExhausted) {
  const std::string grammar =
      GrammarFor({OutputFormat::Kind::kJsonSchema, R"({"type":"string","pattern":"^((a?){100}){100}$"})"}).value();
  auto filter = CreateGrammarFilter(vocabulary_, {grammar, kField, "", nullptr}, absl::Nanoseconds(1));
  // Its start may already have exceeded the time.
  if (!filter.ok()) return;
  std::vector<float> logits(model_->vocabulary_size(), 0);
  (*filter)->Apply(logits);
  EXPECT_TRUE((*filter)->exhausted());
}

}  // namespace
}  // namespace runnel::inference
