#include "services/inference/engine_factory.h"

#include "services/base/status_macros.h"
#include "services/inference/engines/scripted_engine.h"
#include "services/inference/engines/upstream/upstream_engine.h"
#if RUNNEL_HAVE_LLAMA
#include "services/inference/engines/llama/llama_engine.h"
#endif

namespace runnel::inference {
namespace {

#if RUNNEL_HAVE_LLAMA
absl::StatusOr<std::unique_ptr<Engine>> CreateLlama(const LlamaOptions& options, base::Metrics* metrics) {
  return CreateLlamaEngine(options, metrics);
}
#else
absl::StatusOr<std::unique_ptr<Engine>> CreateLlama(const LlamaOptions&, base::Metrics*) {
  return absl::UnimplementedError(
      "this build has no llama.cpp: install it with deploy/local/install.sh and build again, or use --engine=upstream "
      "or --engine=scripted");
}
#endif

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateEngine(const Options& options, base::Metrics* metrics,
                                                     const std::function<bool()>& stopped) {
  switch (options.engine) {
    case EngineKind::kLlama:
      return CreateLlama(options.llama, metrics);
    case EngineKind::kUpstream:
      RETURN_IF_ERROR(CheckUpstreamIsReady(options.upstream, stopped));
      return CreateUpstreamEngine(options.upstream, metrics, stopped);
    case EngineKind::kScripted:
      break;
  }
  return std::make_unique<ScriptedEngine>(options.scripted);
}

}  // namespace runnel::inference
