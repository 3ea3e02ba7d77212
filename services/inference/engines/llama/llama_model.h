#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/engines/llama/llama_decoder.h"
#include "services/inference/generation/generation_request.h"

// llama.cpp's C API is used in llama_model.cc only.
struct llama_context;
struct llama_model;
struct llama_vocab;

namespace runnel::inference {

// A part of a prompt. In text that is not trusted, what looks like a control token stays text.
struct PromptSegment {
  std::string text;
  bool trusted = false;
};

// Weights and vocabulary of one GGUF file. Immutable: every method may be called on any thread.
class LlamaModel {
 public:
  // NotFound if there is no such file; InvalidArgument if it is not a text-generation model; FailedPrecondition if the
  // loaded library is not the version that this was compiled for.
  static absl::StatusOr<std::shared_ptr<const LlamaModel>> Load(const std::string& path);
  ~LlamaModel();
  LlamaModel(const LlamaModel&) = delete;
  LlamaModel& operator=(const LlamaModel&) = delete;

  // The context length that the model was trained with.
  uint32_t trained_context() const;
  uint32_t vocabulary_size() const;

  // Tokenises text, with the tokens that the model requires at the beginning. Text that looks like a control token
  // stays text. InvalidArgument CONTEXT_LENGTH_EXCEEDED for more than `max_tokens`, without tokenising if the text is
  // too long in any case.
  absl::StatusOr<std::vector<int32_t>> Tokenize(std::string_view text, uint32_t max_tokens) const;

  // Tokenises a rendered conversation. More than one segment: the cuts between them may split what the tokenizer would
  // join. InvalidArgument as Tokenize.
  absl::StatusOr<std::vector<int32_t>> TokenizeChat(std::span<const PromptSegment> segments, uint32_t max_tokens) const;

  // The InvalidArgument error of Tokenize if text of this size is too long in any case.
  absl::Status CheckBytes(size_t bytes, uint32_t max_tokens) const;

  // The texts of the control tokens, which only trusted text can contain.
  const std::vector<std::string>& control_texts() const { return control_texts_; }
  // The token that a trusted text is, if it is a single one.
  std::optional<int32_t> TokenOf(std::string_view text) const;

  // The chat template in the file; empty: none.
  std::string chat_template() const;
  // Renders messages with the one of llama.cpp's built-in templates that has this name or resembles this source.
  // Returns an empty text if no template does.
  static std::string ApplyBuiltIn(const std::string& chat_template, const std::vector<ChatMessage>& messages);
  static std::vector<std::string> BuiltInTemplates();

  bool IsEnd(int32_t token) const;
  std::string Piece(int32_t token) const;

  // Valid for the lifetime of the model.
  const llama_model* handle() const { return model_; }
  const llama_vocab* vocabulary() const { return vocabulary_; }

  // "llama.cpp" and its version.
  static std::string LibraryVersion();
  // The instruction sets and libraries that llama.cpp computes with.
  static std::string LibraryBackend();

 private:
  friend class LlamaContext;
  explicit LlamaModel(llama_model* model);

  enum class ControlTokens { kAsText, kParse };
  std::vector<int32_t> RunTokenizer(std::string_view text, bool at_beginning, ControlTokens control) const;
  llama_model* const model_;
  const llama_vocab* const vocabulary_;
  std::vector<std::string> control_texts_;
  size_t longest_piece_ = 1;  // in bytes
};

// The KV cache of a model, and decoding with it. Used by one thread at a time.
class LlamaContext final : public LlamaDecoder {
 public:
  struct Options {
    uint32_t sequences = 0;
    uint32_t cells = 0;  // for all sequences together; rounded up
    // All sequences take their cells from one pool. Otherwise each has separate cells, with its tokens in their order.
    bool pooled = false;
    uint32_t max_rows = 0;
    uint32_t threads_one_row = 0;
    uint32_t threads = 0;
    // Decode a single row together with a dummy row, which is then removed, so that it is computed like one of several
    // rows. Not for models that do not share prefixes, and not at the very end of a sequence's cells.
    bool pair_single_rows = false;
  };
  // ResourceExhausted if there is not enough memory.
  static absl::StatusOr<std::unique_ptr<LlamaContext>> Create(std::shared_ptr<const LlamaModel> model,
                                                              const Options& options);
  ~LlamaContext() override;

  uint32_t sequences() const override;
  uint32_t cells() const override;
  uint32_t max_rows() const override;
  bool shares_prefixes() const override { return shares_prefixes_; }
  LlamaDecodeResult Decode(std::span<const LlamaRow> rows) override;
  std::span<const float> Logits(size_t row) override;
  void Truncate(uint32_t sequence, uint32_t length) override;
  void CopyPrefix(uint32_t from, uint32_t to, uint32_t length) override;
  void Clear() override;
  bool IsEnd(int32_t token) const override { return model_->IsEnd(token); }
  std::string Piece(int32_t token) const override { return model_->Piece(token); }

 private:
  struct Batch;
  LlamaContext(std::shared_ptr<const LlamaModel> model, llama_context* context, const Options& options);
  LlamaDecodeResult DecodeRows(std::span<const LlamaRow> rows);

  const std::shared_ptr<const LlamaModel> model_;
  llama_context* const context_;
  const std::unique_ptr<Batch> batch_;
  const bool shares_prefixes_;
  const bool pairs_single_rows_;
};

}  // namespace runnel::inference
