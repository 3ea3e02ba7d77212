#include "tests/testing/bigram_model.h"

#include <ggml.h>
#include <gguf.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

namespace runnel::testing {
namespace {

constexpr int32_t kFirstByte = 5;
constexpr int32_t kFirstCharacter = kFirstByte + 256;
constexpr int32_t kVocabulary = kFirstCharacter + ('~' - ' ' + 1);
constexpr int64_t kWidth = 384;  // at least the vocabulary, for one-hot embeddings
constexpr int64_t kFeedForward = 64;
constexpr uint32_t kHeads = 6;

// So much larger than the epsilon of the norm that the epsilon vanishes in a float.
constexpr float kOneHot = 100;
constexpr float kImpossible = -200;

// Returns the weight at (column, row) of a tensor.
using Weights = std::function<float(int64_t, int64_t)>;

class Writer {
 public:
  // `matrices`: how the weights of all but the norms are stored.
  Writer(uint32_t layers, ggml_type matrices)
      : matrices_(matrices), file_(gguf_init_empty()), tensors_(ggml_init({size_t{32} << 20, nullptr, false})) {
    gguf_set_val_str(file_, "general.architecture", "llama");
    gguf_set_val_u32(file_, "llama.block_count", layers);
    gguf_set_val_u32(file_, "llama.embedding_length", kWidth);
    gguf_set_val_u32(file_, "llama.feed_forward_length", kFeedForward);
    gguf_set_val_u32(file_, "llama.attention.head_count", kHeads);
    gguf_set_val_u32(file_, "llama.rope.dimension_count", kWidth / kHeads);
    gguf_set_val_f32(file_, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    AddVocabulary();
  }
  ~Writer() {
    ggml_free(tensors_);
    gguf_free(file_);
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  gguf_context* file() { return file_; }

  void Add(const std::string& name, int64_t columns, int64_t rows, const Weights& weights) {
    std::vector<float> data;
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < columns; ++column) data.push_back(weights(column, row));
    }
    const ggml_type type = rows == 1 ? GGML_TYPE_F32 : matrices_;
    ggml_tensor* tensor =
        rows == 1 ? ggml_new_tensor_1d(tensors_, type, columns) : ggml_new_tensor_2d(tensors_, type, columns, rows);
    ggml_set_name(tensor, name.c_str());
    if (type == GGML_TYPE_F32) {
      std::memcpy(tensor->data, data.data(), data.size() * sizeof(float));
    } else {
      ggml_quantize_chunk(type, data.data(), tensor->data, 0, rows, columns, nullptr);
    }
    gguf_add_tensor(file_, tensor);
  }

  void AddLayer(uint32_t layer, const Weights& attention, const Weights& attention_out, const Weights& feed_forward) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const Weights one = [](int64_t, int64_t) { return 1.0F; };
    Add(prefix + "attn_norm.weight", kWidth, 1, one);
    Add(prefix + "attn_q.weight", kWidth, kWidth, attention);
    Add(prefix + "attn_k.weight", kWidth, kWidth, attention);
    Add(prefix + "attn_v.weight", kWidth, kWidth, attention);
    Add(prefix + "attn_output.weight", kWidth, kWidth, attention_out);
    Add(prefix + "ffn_norm.weight", kWidth, 1, one);
    Add(prefix + "ffn_gate.weight", kWidth, kFeedForward, feed_forward);
    Add(prefix + "ffn_up.weight", kWidth, kFeedForward, feed_forward);
    Add(prefix + "ffn_down.weight", kFeedForward, kWidth, feed_forward);
  }

  bool WriteTo(const std::string& path) { return gguf_write_to_file(file_, path.c_str(), false); }

 private:
  // Types of tokens as in llama.h.
  enum TokenType : int32_t { kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6 };

  void AddVocabulary() {
    std::vector<std::string> texts = {"<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"};
    std::vector<int32_t> types = {kUnknown, kControl, kControl, kControl, kControl};
    for (int byte = 0; byte < 256; ++byte) {
      std::array<char, 8> text{};
      std::snprintf(text.data(), text.size(), "<0x%02X>", static_cast<unsigned>(byte));
      texts.emplace_back(text.data());
      types.push_back(kByte);
    }
    for (char c = ' '; c <= '~'; ++c) {
      texts.push_back(c == ' ' ? "\xE2\x96\x81" : std::string(1, c));
      types.push_back(kNormal);
    }
    std::vector<const char*> pointers;
    for (const std::string& text : texts) pointers.push_back(text.c_str());
    const std::vector<float> scores(texts.size(), 0);
    gguf_set_val_str(file_, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(file_, "tokenizer.ggml.tokens", pointers.data(), pointers.size());
    gguf_set_arr_data(file_, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
    gguf_set_arr_data(file_, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
    gguf_set_val_u32(file_, "tokenizer.ggml.bos_token_id", 1);
    gguf_set_val_u32(file_, "tokenizer.ggml.eos_token_id", BigramModel::kEnd);
    gguf_set_val_bool(file_, "tokenizer.ggml.add_bos_token", false);
    gguf_set_val_bool(file_, "tokenizer.ggml.add_space_prefix", false);
  }

  const ggml_type matrices_;
  gguf_context* const file_;
  ggml_context* const tensors_;
};

}  // namespace

int32_t BigramModel::Token(char c) {
  return c >= ' ' && c <= '~' ? kFirstCharacter + (c - ' ') : ByteToken(static_cast<uint8_t>(c));
}

int32_t BigramModel::ByteToken(uint8_t byte) { return kFirstByte + byte; }

void BigramModel::AddChain(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    next[Token(text[i])] = {{i + 1 < text.size() ? Token(text[i + 1]) : kEnd, 1.0}};
  }
}

bool BigramModel::WriteTo(const std::string& path) const {
  Writer writer(1, GGML_TYPE_F32);
  gguf_set_val_u32(writer.file(), "llama.context_length", trained_context);
  if (!chat_template.empty()) gguf_set_val_str(writer.file(), "tokenizer.chat_template", chat_template.c_str());

  const Weights zero = [](int64_t, int64_t) { return 0.0F; };
  writer.Add("token_embd.weight", kWidth, kVocabulary,
             [](int64_t column, int64_t token) { return column == token ? kOneHot : 0.0F; });
  // The norm scales a one-hot vector to the square root of its length; this scales it back to 1.
  const float length = std::sqrt(static_cast<float>(kWidth));
  writer.Add("output_norm.weight", kWidth, 1, [length](int64_t, int64_t) { return 1 / length; });
  writer.Add("output.weight", kWidth, kVocabulary, [this](int64_t column, int64_t token) {
    const auto row = next.find(static_cast<int32_t>(column));
    if (row == next.end()) return token == kEnd ? 0.0F : kImpossible;
    const auto probability = row->second.find(static_cast<int32_t>(token));
    if (probability == row->second.end()) return kImpossible;
    return static_cast<float>(std::log(probability->second));
  });
  writer.AddLayer(0, zero, zero, zero);
  return writer.WriteTo(path);
}

bool WriteRandomModel(const std::string& path, uint64_t seed) {
  // Quantised like the models that people run; with full floats llama.cpp is not exact.
  Writer writer(2, GGML_TYPE_Q8_0);
  gguf_set_val_u32(writer.file(), "llama.context_length", 4096);
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, 1);
  const auto scaled = [&](float scale) -> Weights {
    return [&, scale](int64_t, int64_t) { return scale * normal(random); };
  };
  writer.Add("token_embd.weight", kWidth, kVocabulary, scaled(1));
  writer.Add("output_norm.weight", kWidth, 1, [](int64_t, int64_t) { return 1.0F; });
  // The text is printable and never ends before the token limit.
  writer.Add("output.weight", kWidth, kVocabulary,
             [&](int64_t, int64_t token) { return token >= kFirstCharacter ? 0.25F * normal(random) : 0.0F; });
  for (uint32_t layer = 0; layer < 2; ++layer) writer.AddLayer(layer, scaled(0.1F), scaled(0.2F), scaled(0.1F));
  return writer.WriteTo(path);
}

}  // namespace runnel::testing
