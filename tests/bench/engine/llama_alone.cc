// llama.cpp alone, for comparison with the llama engine: a loop over the same number of streams with one batch per step
// and the most likely token of each sequence; no service, no text, no readers.
//
//   bench-llama MODEL.gguf STREAMS TOKENS THREADS PROMPT
//
// Each stream has its number appended to the prompt, like in the load client, so that nothing can be shared. Prints
// {"tokens","seconds","tokens_per_second","first_token_us"}.

#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kContextTokens = 2048;  // of each stream; the engine's default
constexpr uint32_t kBatchRows = 512;

struct Stream {
  std::vector<llama_token> prompt;
  llama_token last = 0;
  int position = 0;
  int made = 0;
  int row = -1;  // row of the batch with its logits
  bool ended = false;
};

std::vector<llama_token> Tokenize(const llama_vocab* vocabulary, const std::string& text) {
  std::vector<llama_token> tokens(text.size() + 4);
  const int count = llama_tokenize(vocabulary, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                                   static_cast<int32_t>(tokens.size()), true, false);
  tokens.resize(static_cast<size_t>(std::max(0, count)));
  return tokens;
}

void AddRow(llama_batch* batch, llama_token token, int position, size_t sequence, bool logits) {
  const int i = batch->n_tokens++;
  batch->token[i] = token;
  batch->pos[i] = position;
  batch->n_seq_id[i] = 1;
  batch->seq_id[i][0] = static_cast<llama_seq_id>(sequence);
  batch->logits[i] = logits ? 1 : 0;
}

// Adds the remaining prompt tokens first, then one token of each other stream.
void FillBatch(std::vector<Stream>* streams, llama_batch* batch) {
  batch->n_tokens = 0;
  for (size_t i = 0; i < streams->size(); ++i) {
    Stream& stream = (*streams)[i];
    stream.row = -1;
    if (stream.ended) continue;
    const auto prompt = static_cast<int>(stream.prompt.size());
    if (stream.position >= prompt) {
      stream.row = batch->n_tokens;
      AddRow(batch, stream.last, stream.position++, i, true);
      continue;
    }
    while (stream.position < prompt && batch->n_tokens < static_cast<int>(kBatchRows)) {
      const bool last = stream.position + 1 == prompt;
      if (last) stream.row = batch->n_tokens;
      AddRow(batch, stream.prompt[static_cast<size_t>(stream.position)], stream.position, i, last);
      ++stream.position;
    }
  }
}

llama_token Likeliest(const float* logits, int count) {
  return static_cast<llama_token>(std::max_element(logits, logits + count) - logits);
}

int64_t MicrosSince(Clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin).count();
}

int Run(llama_model* model, int count, int tokens, int threads, const std::string& prompt) {
  const llama_vocab* vocabulary = llama_model_get_vocab(model);
  llama_context_params params = llama_context_default_params();
  params.n_seq_max = static_cast<uint32_t>(count);
  params.n_ctx = kContextTokens * params.n_seq_max;
  params.n_batch = params.n_ubatch = kBatchRows;
  params.n_threads = params.n_threads_batch = threads;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.no_perf = true;
  llama_context* context = llama_init_from_model(model, params);
  if (context == nullptr) return 1;
  llama_batch batch = llama_batch_init(kBatchRows, 0, 1);
  const auto begin = Clock::now();
  std::vector<Stream> streams(static_cast<size_t>(count));
  for (size_t i = 0; i < streams.size(); ++i) streams[i].prompt = Tokenize(vocabulary, prompt + std::to_string(i));
  std::vector<int64_t> first_us;
  int made = 0;
  for (int live = count; live > 0;) {
    FillBatch(&streams, &batch);
    if (llama_decode(context, batch) != 0) return 1;
    for (Stream& stream : streams) {
      if (stream.row < 0) continue;
      stream.last = Likeliest(llama_get_logits_ith(context, stream.row), llama_vocab_n_tokens(vocabulary));
      if (llama_vocab_is_eog(vocabulary, stream.last) || stream.made == tokens) {
        stream.ended = true;
        --live;
        continue;
      }
      if (stream.made++ == 0) first_us.push_back(MicrosSince(begin));
      ++made;
      if (stream.made == tokens) {
        stream.ended = true;
        --live;
      }
    }
  }
  const double seconds = static_cast<double>(MicrosSince(begin)) / 1e6;
  std::sort(first_us.begin(), first_us.end());
  std::printf("{\"tokens\": %d, \"seconds\": %.4f, \"tokens_per_second\": %.2f, \"first_token_us\": %lld}\n", made,
              seconds, made / seconds, first_us.empty() ? 0LL : static_cast<long long>(first_us[first_us.size() / 2]));
  llama_batch_free(batch);
  llama_free(context);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: bench-llama MODEL.gguf STREAMS TOKENS THREADS PROMPT\n");
    return 2;
  }
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (model == nullptr) return 1;
  const int result = Run(model, std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(argv[4]), argv[5]);
  llama_model_free(model);
  return result;
}
