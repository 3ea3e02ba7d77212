#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace runnel::testing {

// A GGUF file of about 3 MB whose next token depends only on the last token, with probabilities that the test chooses:
// the engine's text is known in advance and nothing has to be downloaded. It is a real one-layer Llama model with
// one-hot embeddings, attention and feed-forward layers that add nothing, and the logarithms of the probabilities as
// output.
//
// Its vocabulary is the printable ASCII characters, all bytes, and some control tokens.
struct BigramModel {
  // next[a][b] = P(b after a); tokens not in the row have probability 0. A token without a row is followed by the end.
  std::map<int32_t, std::map<int32_t, double>> next;
  std::string chat_template;
  uint32_t trained_context = 4096;

  // The token of a printable ASCII character, or of a byte otherwise.
  static int32_t Token(char c);
  // The token of a single byte, to which the tokenizer falls back.
  static int32_t ByteToken(uint8_t byte);
  static constexpr int32_t kEnd = 2;        // </s>
  static constexpr int32_t kTurnBegin = 3;  // <|im_start|>
  static constexpr int32_t kTurnEnd = 4;    // <|im_end|>, ends a response too

  // Makes `text` certain from each of its characters to the next, and the end after the last. No character may have two
  // successors.
  void AddChain(const std::string& text);

  bool WriteTo(const std::string& path) const;
};

// Writes a model with two layers of random weights and the same vocabulary: each token depends on all tokens before it,
// so that a fault in the handling of the KV cache changes the text.
bool WriteRandomModel(const std::string& path, uint64_t seed);

}  // namespace runnel::testing
