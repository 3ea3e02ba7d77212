#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace runnel::inference {

// Control tokens whose text is a part of the output, by token.
using ControlTexts = std::map<int32_t, std::string>;

// The tokens of a model for grammar filters, sorted by their bytes so that a common beginning is matched only once.
// Immutable.
class GrammarVocabulary {
 public:
  struct Token {
    int32_t token = 0;
    uint32_t begin = 0;
    uint32_t length = 0;
    uint32_t shared = 0;  // bytes in common with the token before it
  };

  // `pieces`: the text of each token, empty for tokens without text. `ends`: the tokens that end an output.
  explicit GrammarVocabulary(const std::vector<std::string>& pieces, std::vector<int32_t> ends);

  std::span<const Token> tokens() const { return tokens_; }
  std::string_view Text(const Token& token) const { return std::string_view(bytes_).substr(token.begin, token.length); }
  // The tokens that end an output.
  std::span<const int32_t> ends() const { return ends_; }
  bool IsEnd(int32_t token) const;
  // Empty for a token without text.
  std::string_view TextOf(int32_t token) const;
  // The tokens without text that do not end an output.
  std::span<const int32_t> others() const { return others_; }

 private:
  std::string bytes_;
  std::vector<Token> tokens_;
  std::vector<uint32_t> places_;  // index in tokens_ by token; UINT32_MAX: no text
  std::vector<int32_t> ends_;     // sorted
  std::vector<int32_t> others_;
};

}  // namespace runnel::inference
