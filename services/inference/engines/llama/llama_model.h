#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/engines/llama/llama_decoder.h"
#include "services/inference/generation/generation_request.h"

// llama.cpp's C API stops here: only llama_model.cc and llama_grammar.cc include llama.h.
struct llama_context;
struct llama_model;
struct llama_vocab;

namespace runnel::inference {

// Weights and vocabulary of one GGUF file. Immutable: every method may be called on any thread.
class LlamaModel {
 public:
  // NotFound if there is no such file; InvalidArgument if it is no model that can generate text; FailedPrecondition if
  // the library loaded is not the one this was compiled for. `chat_template` as in LlamaOptions.
  static absl::StatusOr<std::shared_ptr<const LlamaModel>> Load(const std::string& path, std::string chat_template);
  ~LlamaModel();
  LlamaModel(const LlamaModel&) = delete;
  LlamaModel& operator=(const LlamaModel&) = delete;

  // How many tokens the model was trained to see at once.
  uint32_t trained_context() const;
  uint32_t vocabulary_size() const;

  // Text to tokens, with the tokens that the model wants at the beginning. Text that looks like one of the model's
  // control tokens stays text. InvalidArgument CONTEXT_LENGTH_EXCEEDED without tokenising if there must be more than
  // `max_tokens`.
  absl::StatusOr<std::vector<int32_t>> Tokenize(std::string_view text, uint32_t max_tokens) const;

  // A conversation through the chat template, up to where the assistant's next turn begins. Whatever the contents say,
  // they cannot end their turn or begin another. InvalidArgument if the model has no template that is known here, or
  // as Tokenize.
  absl::StatusOr<std::vector<int32_t>> TokenizeChat(const std::vector<ChatMessage>& messages,
                                                    uint32_t max_tokens) const;

  bool IsEnd(int32_t token) const;
  std::string Piece(int32_t token) const;

  // Valid as long as the model.
  const llama_vocab* vocabulary() const { return vocabulary_; }

  // "llama.cpp" and its version.
  static std::string LibraryVersion();
  // The instruction sets and libraries that it computes with.
  static std::string LibraryBackend();

 private:
  friend class LlamaContext;
  LlamaModel(llama_model* model, std::string chat_template);

  enum class ControlTokens { kAsText, kParse };
  std::vector<int32_t> RunTokenizer(std::string_view text, bool at_beginning, ControlTokens control) const;
  // The usual way would lose some of `text` or take it for more than text.
  bool NeedsGuard(std::string_view text) const;
  // Empty if the template is not known.
  std::string ApplyTemplate(const std::vector<ChatMessage>& messages) const;
  std::vector<int32_t> TokenizeGuarded(const std::vector<ChatMessage>& messages) const;
  absl::Status CheckBytes(size_t bytes, uint32_t max_tokens) const;

  llama_model* const model_;
  const llama_vocab* const vocabulary_;
  const std::string chat_template_;
  size_t longest_piece_ = 1;  // in bytes
};

// The memory of a model at work. Confined to one thread at a time.
class LlamaContext final : public LlamaDecoder {
 public:
  struct Options {
    uint32_t sequences = 0;
    uint32_t cells = 0;  // of all sequences together; rounded up
    // All sequences take their cells from one pool. Otherwise each has its part, and its tokens always lie there in
    // their order.
    bool pooled = false;
    uint32_t max_rows = 0;
    uint32_t threads_one_row = 0;
    uint32_t threads = 0;
    // Decode a row that comes alone together with one that is forgotten again, for it to be computed as rows are that
    // come with others. Not of models without prefixes, nor at the very end of a sequence's cells.
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
