#include "services/inference/engines/llama/control_vocabularies.h"

#include "services/inference/engines/llama/llama_grammar.h"

namespace runnel::inference {

std::shared_ptr<const ControlVocabularies::Vocabulary> ControlVocabularies::For(
    const std::vector<std::string>& preserved) {
  base::MutexLock lock(&mu_);
  if (const auto found = kept_.find(preserved); found != kept_.end()) return found->second;
  auto made = std::make_shared<Vocabulary>();
  for (const std::string& text : preserved) {
    const auto token = model_->TokenOf(text);
    // Other tokens have their text in any case.
    if (token.has_value() && model_->Piece(*token).empty()) made->texts[*token] = text;
  }
  made->tokens = VocabularyFor(*model_, made->texts);
  if (kept_.size() == kMaxKept) kept_.clear();
  return kept_[preserved] = std::move(made);
}

}  // namespace runnel::inference
