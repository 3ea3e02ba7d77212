#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/engines/llama/llama_engine.h"
#include "services/inference/engines/scripted_engine.h"
#include "services/inference/engines/upstream/upstream_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/journal/log_options.h"
#include "services/inference/rpc/grpc_listener.h"
#include "services/inference/rpc/link_reactor.h"

namespace runnel::inference {

enum class EngineKind { kScripted, kLlama, kUpstream };

// The settings of runnel-inference. options.cc says which flag sets each field, and describes the flags.
struct Options {
  GrpcListener::Options grpc;  // --listen, --reflection, --max_grpc_connections, --max_grpc_streams
  std::string admin_listen;
  std::string log_level;
  absl::Duration drain_notice;
  absl::Duration drain_timeout;

  EngineKind engine = EngineKind::kLlama;
  absl::Duration engine_stall_timeout;
  LlamaOptions llama;
  UpstreamOptions upstream;
  ScriptedEngine::Options scripted;

  LogOptions log;  // with grpc_port still 0
  GenerationManager::Options manager;
  LinkOptions link;
};

// Reads the flags of the process. The error names the flag at fault.
absl::StatusOr<Options> OptionsFromFlags();

}  // namespace runnel::inference
