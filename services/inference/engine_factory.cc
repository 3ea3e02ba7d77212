#include "services/inference/engine_factory.h"

#include <algorithm>
#include <utility>

#include "services/inference/engines/upstream/upstream_engine.h"
#if RUNNEL_HAVE_LLAMA
#include "services/inference/engines/llama/llama_engine.h"
#endif

namespace runnel::inference {
namespace {

absl::StatusOr<std::unique_ptr<Engine>> CreateUpstream(const Options& options, base::Metrics* metrics) {
  UpstreamOptions upstream;
  upstream.urls = options.upstream_urls;
  upstream.api_key = options.upstream_api_key;
  upstream.ca_file = options.upstream_ca_file;
  upstream.model = options.upstream_model;
  upstream.model_id = options.model_id;
  upstream.max_streams = options.upstream_streams;
  upstream.models = options.upstream_models;
  upstream.max_streams_each = options.upstream_streams_each;
  upstream.max_failures = options.upstream_max_failures;
  upstream.failure_pause = options.upstream_failure_pause;
  upstream.connect_timeout = options.upstream_connect_timeout;
  upstream.first_token_timeout = options.upstream_first_token_timeout;
  upstream.next_token_timeout = options.upstream_next_token_timeout;
  upstream.silence_timeout = std::max(upstream.first_token_timeout, upstream.next_token_timeout) + absl::Seconds(1);
  return CreateUpstreamEngine(upstream, metrics);
}

#if RUNNEL_HAVE_LLAMA
absl::StatusOr<std::unique_ptr<Engine>> CreateLlama(const Options& options, base::Metrics* metrics) {
  LlamaOptions llama;
  llama.model_path = options.model;
  llama.model_id = options.model_id;
  llama.sequences = options.llama_sequences;
  llama.context = options.llama_context;
  llama.threads = options.llama_threads;
  llama.exact = options.llama_exact;
  llama.chat_template = options.llama_chat_template;
  llama.grammar_step_timeout = options.llama_grammar_step_timeout;
  llama.shared_preamble = options.llama_shared_preamble;
  return CreateLlamaEngine(llama, metrics);
}
#else
absl::StatusOr<std::unique_ptr<Engine>> CreateLlama(const Options&, base::Metrics*) {
  return absl::UnimplementedError(
      "this build has no llama.cpp: install it with deploy/local/install.sh and build again, or use --engine=scripted "
      "or --engine=upstream");
}
#endif

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const Options& options, base::Metrics* metrics) {
  switch (options.engine) {
    case EngineKind::kLlama:
      return CreateLlama(options, metrics);
    case EngineKind::kUpstream:
      return CreateUpstream(options, metrics);
    case EngineKind::kScripted:
      break;
  }
  ScriptedEngine::Options scripted;
  if (!options.model_id.empty()) scripted.model_id = options.model_id;
  scripted.script = options.script;
  return std::make_unique<ScriptedEngine>(std::move(scripted));
}

}  // namespace runnel::inference
