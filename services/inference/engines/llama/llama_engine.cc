#include "services/inference/engines/llama/llama_engine.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/inference/engines/extra_fields.h"
#include "services/inference/engines/llama/chat_template.h"
#include "services/inference/engines/llama/control_vocabularies.h"
#include "services/inference/engines/llama/llama_continuation.h"
#include "services/inference/engines/llama/llama_grammar.h"
#include "services/inference/engines/llama/llama_model.h"
#include "services/inference/engines/llama/llama_scheduler.h"
#include "services/inference/engines/llama/model_fingerprint.h"

namespace runnel::inference {
namespace {

// Exact: a row's result depends only on the tokens before it, bit for bit (measured with llama.cpp 0.5.0 on x86-64).
// Three things would change the order in which floats are added, and so the last bits:
// - From 64 rows on, attention is computed in tiles. So there are fewer rows.
// - The attention of a single row is split among threads. So it is decoded together with a dummy row by all threads or,
//   if that is not possible, by one.
// - In a shared pool of cells a sequence's tokens are wherever there was room, after some time not in their order:
// logits
//   differed by up to 0.5. So each sequence has separate cells.
constexpr uint32_t kExactRows = 60;
constexpr uint32_t kFastRows = 512;

// Whether this holds for this model on this machine. It does not, for example, for unquantised weights: llama.cpp 0.5.0
// multiplies a single row differently from several.
bool IsExact(const LlamaModel& model, LlamaContext* context) {
  constexpr uint32_t kTokens = 8;
  const auto row = [&](uint32_t position, bool logits) {
    const auto token = static_cast<int32_t>((position + 1) * 37 % model.vocabulary_size());
    return LlamaRow{token, position, 0, logits};
  };
  std::vector<LlamaRow> rows;
  // Logits of two rows if possible, so that the last product also has several rows.
  for (uint32_t i = 0; i < kTokens; ++i) rows.push_back(row(i, i + std::min(2u, context->sequences()) >= kTokens));
  std::vector<float> together;
  if (context->Decode(rows) == LlamaDecodeResult::kOk) {
    const auto logits = context->Logits(kTokens - 1);
    together.assign(logits.begin(), logits.end());
  }
  context->Truncate(0, 0);
  bool ok = !together.empty();
  for (uint32_t i = 0; ok && i < kTokens; ++i) {
    const LlamaRow one = row(i, i + 1 == kTokens);
    ok = context->Decode({&one, 1}) == LlamaDecodeResult::kOk;
  }
  ok = ok && std::memcmp(context->Logits(0).data(), together.data(), together.size() * sizeof(float)) == 0;
  context->Truncate(0, 0);
  return ok;
}

class PreparedLlama final : public PreparedGeneration {
 public:
  explicit PreparedLlama(std::string fingerprint) : fingerprint_(std::move(fingerprint)) {}
  uint32_t prompt_tokens() const override { return static_cast<uint32_t>(job.prompt.size()); }
  std::string fingerprint() const override { return fingerprint_; }
  LlamaJob job;

 private:
  const std::string fingerprint_;
};

absl::StatusOr<SamplerOptions> SamplerFor(const Sampling& sampling, uint32_t vocabulary_size) {
  SamplerOptions options;
  options.presence_penalty = sampling.presence_penalty.value_or(options.presence_penalty);
  options.frequency_penalty = sampling.frequency_penalty.value_or(options.frequency_penalty);
  options.top_k = sampling.top_k.value_or(options.top_k);
  options.top_p = sampling.top_p.value_or(options.top_p);
  options.min_p = sampling.min_p.value_or(options.min_p);
  options.temperature = sampling.temperature.value_or(options.temperature);
  for (const auto& [token, bias] : sampling.logit_bias) {
    if (token >= vocabulary_size) {
      return base::InvalidField("logit_bias",
                                absl::StrCat("the model has no token ", token, ": must be below ", vocabulary_size));
    }
    options.logit_bias.emplace_back(static_cast<int32_t>(token), bias);
  }
  return options;
}

// Of everything in a conversation that reaches the prompt.
size_t TextBytes(const GenerationRequest& request) {
  size_t bytes = 0;
  for (const ChatMessage& message : request.messages) {
    bytes += message.content.size() + message.reasoning.size();
    for (const CalledTool& call : message.tool_calls) bytes += call.name.size() + call.arguments.size();
  }
  for (const Tool& tool : request.tools) bytes += tool.name.size() + tool.description.size() + tool.parameters.size();
  return bytes;
}

// FNV-1a, 64 bits.
uint64_t HashOf(const std::vector<int32_t>& tokens, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325 ^ seed;
  for (const int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001b3;
  return hash;
}

class LlamaEngine final : public Engine {
 public:
  struct Identity {
    ModelInfo info;
    std::string fingerprint;
    absl::Duration grammar_step_timeout;
    std::unique_ptr<const ChatTemplate> chat;
  };
  LlamaEngine(Identity identity, std::shared_ptr<const LlamaModel> model, std::unique_ptr<LlamaContext> context,
              const LlamaScheduler::Options& options, base::Metrics* metrics)
      : info_(std::move(identity.info)),
        fingerprint_(std::move(identity.fingerprint)),
        grammar_step_timeout_(identity.grammar_step_timeout),
        chat_(std::move(identity.chat)),
        model_(std::move(model)),
        vocabularies_(model_),
        context_(std::move(context)),
        scheduler_(context_.get(), metrics, options) {}

  std::vector<ModelInfo> Models() const override { return {info_}; }
  uint32_t MaxRunning() const override { return context_->sequences(); }

  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest& request) override {
    RETURN_IF_ERROR(RejectImages(request));
    if (request.choice_count > MaxRunning()) {
      return base::InvalidField(
          "choice_count", absl::StrCat("must be at most ", MaxRunning(), ", the number of choices that run at a time"));
    }
    auto prepared = std::make_unique<PreparedLlama>(fingerprint_);
    LlamaJob& job = prepared->job;
    const uint32_t room = info_.context_length - 1;  // the output has at least one token
    GrammarRules rules;
    std::vector<std::string> preserved;
    if (request.messages.empty()) {
      RETURN_IF_ERROR(RejectExtraFields(request));
      RETURN_IF_ERROR(RejectReasoningEffort(request));
      ASSIGN_OR_RETURN(job.prompt, model_->Tokenize(request.prompt, room));
    } else {
      ASSIGN_OR_RETURN(rules, PrepareChat(request, room, &job, &preserved));
    }
    if (job.prompt.empty()) return base::InvalidField("prompt", "must have at least one token");
    ASSIGN_OR_RETURN(job.sampler, SamplerFor(request.sampling, model_->vocabulary_size()));
    if (rules.grammar.empty()) {
      rules = {};
      rules.field = "output_format.json_schema";
      ASSIGN_OR_RETURN(rules.grammar, GrammarFor(request.output_format));
    }
    const auto vocabulary = vocabularies_.For(preserved);
    job.output.control_texts = std::shared_ptr<const ControlTexts>(vocabulary, &vocabulary->texts);
    if (!rules.grammar.empty()) {
      ASSIGN_OR_RETURN(job.filter, CreateGrammarFilter(vocabulary->tokens, rules, grammar_step_timeout_));
    }
    job.principal = request.principal;
    job.top_logprobs = request.top_logprobs;
    job.seed = request.seed;
    job.max_tokens = request.max_tokens.value_or(info_.context_length);  // the context ends it before that
    job.choice_count = request.choice_count;
    job.output.stop = request.stop;
    return prepared;
  }

  bool CanContinue(const GenerationRequest& request, const LogSegment& log) const override {
    return request.choice_count <= MaxRunning() && HasTokenIds(log);
  }

  absl::StatusOr<std::unique_ptr<PreparedGeneration>> PrepareContinuation(
      const GenerationRequest& request, std::shared_ptr<const LogSegment> log) override {
    ASSIGN_OR_RETURN(auto prepared, Prepare(request));
    LlamaJob* const job = &static_cast<PreparedLlama&>(*prepared).job;
    RETURN_IF_ERROR(ContinueFromLog(*log, *model_, info_.context_length, job));
    return prepared;
  }

  void Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) override {
    scheduler_.Start(std::move(static_cast<PreparedLlama&>(*prepared).job), std::move(sink));
  }

  void CancelRequested() override {}
  // A step is a batch: one token of each output, or some of a prompt.
  absl::Duration StalledFor() const override { return scheduler_.StalledFor(); }
  void Stop() override { scheduler_.Stop(); }

 private:
  // Sets the prompt and the rules of the output. Returns its grammar, if it has one of its own.
  absl::StatusOr<GrammarRules> PrepareChat(const GenerationRequest& request, uint32_t room, LlamaJob* job,
                                           std::vector<std::string>* preserved) const {
    RETURN_IF_ERROR(RejectExtraFields(request, "chat_template_kwargs"));
    // Before the template is applied, which takes longer.
    RETURN_IF_ERROR(model_->CheckBytes(TextBytes(request), room));
    ASSIGN_OR_RETURN(ChatPrompt chat, chat_->Render(request));
    ASSIGN_OR_RETURN(job->prompt, model_->TokenizeChat(chat.segments, room));
    job->output.syntax = std::move(chat.syntax);
    job->output.syntax_stops = std::move(chat.stops);
    job->output.call_seed = HashOf(job->prompt, request.seed);
    *preserved = std::move(chat.preserved);
    return GrammarRules{std::move(chat.grammar), std::move(chat.grammar_field), std::move(chat.generation_prompt),
                        std::move(chat.triggers)};
  }

  const ModelInfo info_;
  const std::string fingerprint_;
  const absl::Duration grammar_step_timeout_;
  const std::unique_ptr<const ChatTemplate> chat_;
  const std::shared_ptr<const LlamaModel> model_;
  ControlVocabularies vocabularies_;
  const std::unique_ptr<LlamaContext> context_;
  LlamaScheduler scheduler_;
};

absl::Status CheckOptions(const LlamaOptions& options) {
  if (options.sequences < 1 || options.sequences > kMaxLlamaSequences) {
    return absl::InvalidArgumentError(absl::StrCat("llama: sequences must be 1 to ", kMaxLlamaSequences));
  }
  if (options.context < 2) return absl::InvalidArgumentError("llama: context must be at least 2 tokens");
  if (options.kv_cells > 0 && (options.exact || options.kv_cells < options.context)) {
    return absl::InvalidArgumentError("llama: kv_cells must be at least the context of one choice, and 0 if exact");
  }
  if (options.grammar_step_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("llama: grammar_step_timeout must be above 0");
  }
  if (options.prefill_rows < 1) return absl::InvalidArgumentError("llama: prefill_rows must be at least 1");
  return absl::OkStatus();
}

// The text alone, and as a system message. Neither has any text of a client.
absl::StatusOr<std::vector<std::vector<int32_t>>> PreamblesFor(const LlamaModel& model, const ChatTemplate& chat,
                                                               const std::string& text, uint32_t context) {
  std::vector<std::vector<int32_t>> preambles;
  if (text.empty()) return preambles;
  auto tokens = model.Tokenize(text, context);
  if (!tokens.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("llama: shared preamble: ", tokens.status().message()));
  }
  preambles.push_back(*std::move(tokens));
  // A model without a chat template has no system messages.
  GenerationRequest request;
  request.messages = {{ChatRole::kSystem, text}};
  if (const auto prompt = chat.Render(request); prompt.ok()) {
    auto system = model.TokenizeChat(prompt->segments, context);
    if (system.ok()) preambles.push_back(*std::move(system));
  }
  return preambles;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateLlamaEngine(const LlamaOptions& options, base::Metrics* metrics) {
  RETURN_IF_ERROR(CheckOptions(options));
  ASSIGN_OR_RETURN(auto model, LlamaModel::Load(options.model_path));
  ASSIGN_OR_RETURN(auto chat, ChatTemplate::Create(*model, options.chat_template));
  const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());

  LlamaScheduler::Options scheduling;
  scheduling.context = std::min(options.context, std::max(2u, model->trained_context()));
  scheduling.prefill_rows = options.prefill_rows;
  scheduling.reserve_tokens = options.reserve_tokens;
  ASSIGN_OR_RETURN(scheduling.preambles, PreamblesFor(*model, *chat, options.shared_preamble, scheduling.context));

  LlamaContext::Options memory;
  memory.sequences = options.sequences;
  memory.cells = options.kv_cells > 0 ? options.kv_cells : options.sequences * scheduling.context;
  memory.max_rows = options.exact ? kExactRows : kFastRows;
  memory.pooled = !options.exact;
  memory.threads = options.threads > 0 ? options.threads : std::max(1u, cores - 1);
  memory.threads_one_row = options.exact ? 1 : memory.threads;
  memory.pair_single_rows = options.exact && memory.threads > 1;
  ASSIGN_OR_RETURN(auto context, LlamaContext::Create(model, memory));

  const bool exact = options.exact && IsExact(*model, context.get());
  if (options.exact && !exact) {
    spdlog::warn(
        "this model is not computed exactly on this machine: the same seed may give different text now and then");
  }

  ASSIGN_OR_RETURN(const std::string file, FileIdentity(options.model_path));
  LlamaEngine::Identity identity;
  // The instruction sets change the last bits, and so do the rows and threads if not exact.
  const std::vector<std::string> parts = {
      file,
      chat->identity(),
      LlamaModel::LibraryVersion(),
      LlamaModel::LibraryBackend(),
      exact ? "exact" : absl::StrCat("rows ", memory.max_rows, " threads ", memory.threads),
      absl::StrCat("context ", scheduling.context, " sampler ", kSamplerVersion)};
  identity.fingerprint = FingerprintOf(parts);
  identity.grammar_step_timeout = options.grammar_step_timeout;
  identity.chat = std::move(chat);
  ModelInfo& info = identity.info;
  info.id = options.model_id.empty() ? std::filesystem::path(options.model_path).stem().string() : options.model_id;
  info.engine = "llama";
  info.context_length = scheduling.context;
  info.created_at = absl::Now();
  spdlog::info("{} runs {}: {} choices of {} tokens, {} tokens of KV cache, {} threads, {}, sampler {}, {}",
               LlamaModel::LibraryVersion(), info.id, memory.sequences, scheduling.context, context->cells(),
               memory.threads, exact ? "exact" : "not exact", kSamplerVersion, identity.fingerprint);
  return std::make_unique<LlamaEngine>(std::move(identity), std::move(model), std::move(context), scheduling, metrics);
}

}  // namespace runnel::inference
