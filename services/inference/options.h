#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/engines/scripted_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/rpc/grpc_listener.h"
#include "services/inference/rpc/link_reactor.h"

namespace runnel::inference {

enum class EngineKind { kScripted, kLlama, kUpstream };

// All that can be set of runnel-inference; each field is a flag of the same name (options.cc), which has its text.
struct Options {
  GrpcListener::Options grpc;  // --listen, --reflection, --max_grpc_connections, --max_grpc_streams
  std::string admin_listen;
  std::string log_level;
  absl::Duration drain_notice;
  absl::Duration drain_timeout;

  EngineKind engine = EngineKind::kLlama;
  absl::Duration engine_stall_timeout;
  std::string model;  // path of a GGUF
  std::string model_id;
  uint32_t llama_sequences = 0;
  uint32_t llama_context = 0;
  uint32_t llama_threads = 0;
  bool llama_exact = true;
  std::string llama_chat_template;
  absl::Duration llama_grammar_step_timeout;
  std::string llama_shared_preamble;  // read from --llama_shared_preamble_file
  std::vector<std::string> upstream_urls;
  std::string upstream_model;
  std::vector<std::pair<std::string, std::string>> upstream_models;  // our clients' name, the upstream's name
  std::string upstream_api_key;                                      // read from --upstream_api_key_file
  std::string upstream_ca_file;
  uint32_t upstream_streams = 0;
  uint32_t upstream_streams_each = 0;
  uint32_t upstream_max_failures = 0;
  absl::Duration upstream_failure_pause;
  absl::Duration upstream_connect_timeout;
  absl::Duration upstream_first_token_timeout;
  absl::Duration upstream_next_token_timeout;
  Script script;

  GenerationManager::Options manager;
  LinkOptions link;
};

// From the flags of the process. InvalidArgument names the flag at fault.
absl::StatusOr<Options> OptionsFromFlags();

}  // namespace runnel::inference
