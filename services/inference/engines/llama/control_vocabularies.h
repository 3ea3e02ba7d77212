#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/base/mutex.h"
#include "services/inference/engines/llama/grammar_vocabulary.h"
#include "services/inference/engines/llama/llama_model.h"

namespace runnel::inference {

// The vocabularies of a model for grammars, by the control tokens whose text is a part of the output. Made when they
// are needed, and kept, because reading the whole vocabulary takes long. Thread-safe.
class ControlVocabularies {
 public:
  struct Vocabulary {
    ControlTexts texts;
    std::shared_ptr<const GrammarVocabulary> tokens;
  };

  explicit ControlVocabularies(std::shared_ptr<const LlamaModel> model) : model_(std::move(model)) {}

  // `preserved`: texts of control tokens; others are ignored.
  std::shared_ptr<const Vocabulary> For(const std::vector<std::string>& preserved) EXCLUDES(mu_);

 private:
  // A template has two or three: with and without tools.
  static constexpr size_t kMaxKept = 8;

  const std::shared_ptr<const LlamaModel> model_;
  base::Mutex mu_;
  std::map<std::vector<std::string>, std::shared_ptr<const Vocabulary>> kept_ GUARDED_BY(mu_);
};

}  // namespace runnel::inference
