#include "services/inference/engines/llama/llama_model.h"

#include <ggml-backend.h>
#include <llama.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

void LogLine(ggml_log_level level, const char* text, void*) {
  std::string_view line = text;
  while (line.ends_with('\n')) line.remove_suffix(1);
  if (line.empty() || line == ".") return;
  // Errors of the library are handled and reported by its caller.
  spdlog::log(level == GGML_LOG_LEVEL_ERROR ? spdlog::level::info : spdlog::level::debug, "llama.cpp: {}", line);
}

absl::Status InitLibrary() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(LogLine, nullptr);
    // A library whose backends are plugins has not loaded any yet.
    if (ggml_backend_dev_count() == 0) ggml_backend_load_all();
    llama_backend_init();
  });
#ifdef RUNNEL_LLAMA_VERSION
  // Its structs are passed by value, so a release other than the headers' would read them wrongly.
  if (std::string_view(llama_version()) != RUNNEL_LLAMA_VERSION) {
    return absl::FailedPreconditionError(absl::StrCat("this program was compiled for llama.cpp ", RUNNEL_LLAMA_VERSION,
                                                      " but has loaded ", llama_version(),
                                                      ": install the former, or build again"));
  }
#endif
  return absl::OkStatus();
}

const char* RoleName(ChatRole role) {
  switch (role) {
    case ChatRole::kSystem:
    case ChatRole::kDeveloper:
      return "system";
    case ChatRole::kAssistant:
      return "assistant";
    case ChatRole::kUser:
    case ChatRole::kTool:
      break;
  }
  return "user";
}

// The output has at least one token in addition to the `max` of the prompt. Some clients, for example LiteLLM, look for
// the phrase "maximum context length is".
absl::Status ContextLengthExceeded(size_t requested, uint32_t max) {
  base::ErrorDetail detail;
  detail.reason = "CONTEXT_LENGTH_EXCEEDED";
  detail.metadata = {{"max", absl::StrCat(max)}, {"requested", absl::StrCat(requested)}};
  return base::MakeError(absl::StatusCode::kInvalidArgument,
                         absl::StrCat("this model's maximum context length is ", max + 1,
                                      " tokens, but the prompt has at "
                                      "least ",
                                      requested, " and the output needs one: shorten the prompt"),
                         std::move(detail));
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LlamaModel>> LlamaModel::Load(const std::string& path) {
  RETURN_IF_ERROR(InitLibrary());
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat("no such model file: ", path));
  }
  llama_model* const loaded = llama_model_load_from_file(path.c_str(), llama_model_default_params());
  if (loaded == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("llama.cpp cannot load ", path,
                                                   ": not a GGUF file, corrupt, or an architecture that llama.cpp ",
                                                   llama_version(), " does not support"));
  }
  std::shared_ptr<const LlamaModel> model(new LlamaModel(loaded));
  if (!llama_model_has_decoder(loaded) || llama_model_has_encoder(loaded) || model->vocabulary_size() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a text-generation (decoder-only) model"));
  }
  return model;
}

LlamaModel::LlamaModel(llama_model* model) : model_(model), vocabulary_(llama_model_get_vocab(model)) {
  for (uint32_t i = 0; i < vocabulary_size(); ++i) {
    const auto token = static_cast<llama_token>(i);
    // The text, not the piece: a control token's text is longer than its piece. Some vocabularies spell one byte with
    // several, which only makes this larger than necessary.
    const std::string_view text = llama_vocab_get_text(vocabulary_, token);
    longest_piece_ = std::max(longest_piece_, text.size());
    const auto attributes = static_cast<uint32_t>(llama_vocab_get_attr(vocabulary_, token));
    if ((attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0 && !text.empty()) {
      control_texts_.emplace_back(text);
    }
  }
}

LlamaModel::~LlamaModel() { llama_model_free(model_); }

uint32_t LlamaModel::trained_context() const { return static_cast<uint32_t>(llama_model_n_ctx_train(model_)); }

uint32_t LlamaModel::vocabulary_size() const { return static_cast<uint32_t>(llama_vocab_n_tokens(vocabulary_)); }

bool LlamaModel::IsEnd(int32_t token) const { return llama_vocab_is_eog(vocabulary_, token); }

std::string LlamaModel::LibraryVersion() { return absl::StrCat("llama.cpp ", llama_version()); }

std::string LlamaModel::LibraryBackend() { return llama_print_system_info(); }

std::string LlamaModel::Piece(int32_t token) const {
  std::string piece(32, '\0');
  const auto render = [&] {
    return llama_token_to_piece(vocabulary_, token, piece.data(), static_cast<int32_t>(piece.size()), 0, false);
  };
  int32_t length = render();
  if (length < 0) {
    piece.resize(static_cast<size_t>(-length));
    length = render();
  }
  piece.resize(static_cast<size_t>(std::max(length, 0)));
  return piece;
}

// Rejects megabytes of text without tokenising them first.
absl::Status LlamaModel::CheckBytes(size_t bytes, uint32_t max_tokens) const {
  const size_t fewest = bytes / longest_piece_;
  return fewest > max_tokens ? ContextLengthExceeded(fewest, max_tokens) : absl::OkStatus();
}

std::vector<int32_t> LlamaModel::RunTokenizer(std::string_view text, bool at_beginning, ControlTokens control) const {
  // At most one token per byte, and a few at the beginning and end.
  std::vector<int32_t> tokens(text.size() + 4);
  const auto run = [&] {
    return llama_tokenize(vocabulary_, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                          static_cast<int32_t>(tokens.size()), at_beginning, control == ControlTokens::kParse);
  };
  int32_t count = run();
  if (count < 0 && count != INT32_MIN) {
    tokens.resize(static_cast<size_t>(-count));
    count = run();
  }
  tokens.resize(static_cast<size_t>(std::max(count, 0)));
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> LlamaModel::Tokenize(std::string_view text, uint32_t max_tokens) const {
  RETURN_IF_ERROR(CheckBytes(text.size(), max_tokens));
  try {
    auto tokens = RunTokenizer(text, true, ControlTokens::kAsText);
    if (tokens.size() > max_tokens) return ContextLengthExceeded(tokens.size(), max_tokens);
    return tokens;
  } catch (const std::exception& e) {
    return base::InvalidField("prompt", absl::StrCat("the model's tokenizer rejects it: ", e.what()));
  }
}

absl::StatusOr<std::vector<int32_t>> LlamaModel::TokenizeChat(std::span<const PromptSegment> segments,
                                                              uint32_t max_tokens) const {
  size_t bytes = 0;
  for (const PromptSegment& segment : segments) bytes += segment.text.size();
  RETURN_IF_ERROR(CheckBytes(bytes, max_tokens));
  try {
    std::vector<int32_t> tokens;
    for (const PromptSegment& segment : segments) {
      if (segment.text.empty() && !tokens.empty()) continue;
      const auto more =
          RunTokenizer(segment.text, tokens.empty(), segment.trusted ? ControlTokens::kParse : ControlTokens::kAsText);
      tokens.insert(tokens.end(), more.begin(), more.end());
    }
    if (tokens.size() > max_tokens) return ContextLengthExceeded(tokens.size(), max_tokens);
    return tokens;
  } catch (const std::exception& e) {
    return base::InvalidField("messages", absl::StrCat("the model's tokenizer rejects them: ", e.what()));
  }
}

std::optional<int32_t> LlamaModel::TokenOf(std::string_view text) const {
  const auto tokens = RunTokenizer(text, false, ControlTokens::kParse);
  return tokens.size() == 1 ? std::optional<int32_t>(tokens[0]) : std::nullopt;
}

std::string LlamaModel::chat_template() const {
  const char* text = llama_model_chat_template(model_, nullptr);
  return text == nullptr ? "" : text;
}

std::string LlamaModel::ApplyBuiltIn(const std::string& chat_template, const std::vector<ChatMessage>& messages) {
  if (chat_template.empty()) return {};
  std::vector<llama_chat_message> chat;
  size_t bytes = 256;
  for (const ChatMessage& message : messages) {
    chat.push_back({RoleName(message.role), message.content.c_str()});
    bytes += 2 * (message.content.size() + 64);
  }
  std::string text(bytes, '\0');
  const auto apply = [&] {
    return llama_chat_apply_template(chat_template.c_str(), chat.data(), chat.size(), true, text.data(),
                                     static_cast<int32_t>(text.size()));
  };
  int32_t length = apply();
  if (length > static_cast<int32_t>(text.size())) {
    text.resize(static_cast<size_t>(length));
    length = apply();
  }
  text.resize(static_cast<size_t>(std::max(length, 0)));
  return text;
}

std::vector<std::string> LlamaModel::BuiltInTemplates() {
  std::vector<const char*> names(static_cast<size_t>(std::max(0, llama_chat_builtin_templates(nullptr, 0))));
  llama_chat_builtin_templates(names.data(), names.size());
  return {names.begin(), names.end()};
}

// Rows in the form that llama_decode takes. Each belongs to one sequence.
struct LlamaContext::Batch {
  explicit Batch(uint32_t max_rows) : rows(llama_batch_init(static_cast<int32_t>(max_rows), 0, 1)) {}
  ~Batch() { llama_batch_free(rows); }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  llama_batch rows;
};

absl::StatusOr<std::unique_ptr<LlamaContext>> LlamaContext::Create(std::shared_ptr<const LlamaModel> model,
                                                                   const Options& options) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = options.cells;
  params.n_seq_max = options.sequences;
  params.n_batch = params.n_ubatch = options.max_rows;
  params.n_outputs_max = options.sequences;
  params.n_threads = static_cast<int32_t>(options.threads_one_row);
  params.n_threads_batch = static_cast<int32_t>(options.threads);
  params.kv_unified = options.pooled;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.no_perf = true;
  llama_context* context = llama_init_from_model(model->model_, params);
  if (context == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("llama.cpp cannot create a context of ", options.cells,
                     " tokens, probably for lack of memory: reduce --llama_context or --llama_sequences"));
  }
  std::unique_ptr<LlamaContext> made(new LlamaContext(std::move(model), context, options));
  if (llama_get_memory(context) == nullptr)
    return absl::InvalidArgumentError("the model is not a text-generation (decoder-only) model");
  return made;
}

LlamaContext::LlamaContext(std::shared_ptr<const LlamaModel> model, llama_context* context, const Options& options)
    : model_(std::move(model)),
      context_(context),
      batch_(std::make_unique<Batch>(options.max_rows)),
      // The state of a recurrent model has no prefixes: it can only be dropped.
      shares_prefixes_(!llama_model_is_recurrent(model_->model_) && !llama_model_is_hybrid(model_->model_)),
      pairs_single_rows_(options.pair_single_rows && shares_prefixes_ && options.max_rows > 1) {}

LlamaContext::~LlamaContext() { llama_free(context_); }

uint32_t LlamaContext::sequences() const { return llama_n_seq_max(context_); }
uint32_t LlamaContext::cells() const { return llama_n_ctx(context_); }
uint32_t LlamaContext::max_rows() const { return llama_n_batch(context_); }

LlamaDecodeResult LlamaContext::Decode(std::span<const LlamaRow> rows) {
  if (!pairs_single_rows_ || rows.size() != 1 || rows[0].position + 1 >= llama_n_ctx_seq(context_)) {
    return DecodeRows(rows);
  }
  const LlamaRow& row = rows[0];
  const LlamaRow pair[] = {row, {row.token, row.position + 1, row.sequence, false}};
  const LlamaDecodeResult result = DecodeRows(pair);
  Truncate(row.sequence, row.position + 1);
  return result;
}

LlamaDecodeResult LlamaContext::DecodeRows(std::span<const LlamaRow> rows) {
  llama_batch& batch = batch_->rows;
  batch.n_tokens = static_cast<int32_t>(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    batch.token[i] = rows[i].token;
    batch.pos[i] = static_cast<llama_pos>(rows[i].position);
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = static_cast<llama_seq_id>(rows[i].sequence);
    batch.logits[i] = rows[i].logits ? 1 : 0;
  }
  try {
    const int32_t result = llama_decode(context_, batch);
    if (result == 0) return LlamaDecodeResult::kOk;
    if (result == 1) return LlamaDecodeResult::kNoRoom;
    spdlog::error("llama_decode returned {} for {} rows", result, rows.size());
  } catch (const std::exception& e) {
    spdlog::error("llama_decode threw: {}", e.what());
  }
  return LlamaDecodeResult::kFailed;
}

std::span<const float> LlamaContext::Logits(size_t row) {
  return {llama_get_logits_ith(context_, static_cast<int32_t>(row)), model_->vocabulary_size()};
}

void LlamaContext::Truncate(uint32_t sequence, uint32_t length) {
  llama_memory_seq_rm(llama_get_memory(context_), static_cast<llama_seq_id>(sequence),
                      length == 0 ? -1 : static_cast<llama_pos>(length), -1);
}

void LlamaContext::CopyPrefix(uint32_t from, uint32_t to, uint32_t length) {
  // The whole, because sequences with separate memory cannot copy a part.
  llama_memory_seq_cp(llama_get_memory(context_), static_cast<llama_seq_id>(from), static_cast<llama_seq_id>(to), -1,
                      -1);
  Truncate(to, length);
}

void LlamaContext::Clear() { llama_memory_clear(llama_get_memory(context_), false); }

}  // namespace runnel::inference
