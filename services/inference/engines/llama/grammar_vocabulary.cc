#include "services/inference/engines/llama/grammar_vocabulary.h"

#include <algorithm>
#include <utility>

namespace runnel::inference {

GrammarVocabulary::GrammarVocabulary(const std::vector<std::string>& pieces, std::vector<int32_t> ends)
    : places_(pieces.size(), UINT32_MAX), ends_(std::move(ends)) {
  std::sort(ends_.begin(), ends_.end());
  std::vector<int32_t> order;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const auto token = static_cast<int32_t>(i);
    if (IsEnd(token)) continue;
    (pieces[i].empty() ? others_ : order).push_back(token);
  }
  const auto text_of = [&pieces](int32_t token) -> const std::string& { return pieces[static_cast<size_t>(token)]; };
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return std::pair(std::string_view(text_of(a)), a) < std::pair(std::string_view(text_of(b)), b);
  });
  std::string_view before;
  for (const int32_t token : order) {
    const std::string& text = text_of(token);
    const auto parting = std::mismatch(text.begin(), text.end(), before.begin(), before.end()).first;
    places_[static_cast<size_t>(token)] = static_cast<uint32_t>(tokens_.size());
    tokens_.push_back({token, static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(text.size()),
                       static_cast<uint32_t>(parting - text.begin())});
    bytes_ += text;
    before = text;
  }
}

bool GrammarVocabulary::IsEnd(int32_t token) const { return std::binary_search(ends_.begin(), ends_.end(), token); }

std::string_view GrammarVocabulary::TextOf(int32_t token) const {
  const uint32_t place = places_[static_cast<size_t>(token)];
  return place == UINT32_MAX ? std::string_view() : Text(tokens_[place]);
}

}  // namespace runnel::inference
