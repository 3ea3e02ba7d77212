#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace runnel::testing {

// A GGUF of about 3 MB whose next token depends on the last token alone, with probabilities that the test chooses: what
// the engine must say is known beforehand, and nothing has to be downloaded. It is a true one-layer Llama: embeddings
// one-hot, attention and feed-forward adding nothing, the output the logarithms of the probabilities.
//
// Its vocabulary is the printable ASCII characters, all bytes, and some control tokens.
struct BigramModel {
  // next[a][b] = P(b after a); the rest of a row is impossible. A token without a row is followed by the end.
  std::map<int32_t, std::map<int32_t, double>> next;
  std::string chat_template;
  uint32_t trained_context = 4096;

  // Of a printable ASCII character, or a byte otherwise.
  static int32_t Token(char c);
  // Of a byte as such, which the tokenizer falls back to.
  static int32_t ByteToken(uint8_t byte);
  static constexpr int32_t kEnd = 2;        // </s>
  static constexpr int32_t kTurnBegin = 3;  // <|im_start|>
  static constexpr int32_t kTurnEnd = 4;    // <|im_end|>, ends an answer too

  // Makes `text` certain from each of its characters to the next, and the end after the last. No character may have two
  // successors.
  void AddChain(const std::string& text);

  bool WriteTo(const std::string& path) const;
};

// Two layers of random weights, the same vocabulary: each token depends on all before it, so that a fault in the
// handling of the KV cache changes the text.
bool WriteRandomModel(const std::string& path, uint64_t seed);

}  // namespace runnel::testing
