#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/metrics.h"
#include "services/inference/engine.h"

namespace runnel::inference {

struct UpstreamOptions {
  std::string url;      // http://host:port[/v1] or https://..., see upstream_url.h
  std::string api_key;  // bearer key; empty: none is sent
  std::string ca_file;  // https: PEM file of the authorities to trust; empty: the system's
  std::string model;    // the upstream's name of the model; empty: the first that it lists, asked for once at the start
  std::string model_id;  // the name that our clients use; empty: the same
  uint32_t max_streams = 256;
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration write_timeout = absl::Seconds(10);
  absl::Duration silence_timeout = absl::Minutes(5);  // the longest that the upstream may send no byte
  // How long to wait for the usage once every choice has its finish reason, and for the end of the response, which lets
  // the connection be used again.
  absl::Duration linger = absl::Seconds(2);
  absl::Duration max_idle = absl::Seconds(30);     // of a kept connection
  size_t max_event_bytes = size_t{1} << 20;        // of one event, and of one line of it
  uint64_t max_answer_bytes = uint64_t{16} << 20;  // of text, over all choices of a generation
};

// An engine that passes generations to an OpenAI-compatible server (vLLM, llama-server, Ollama): one streaming request
// each, blocking on a thread of its own. Prompts, answers and keys are never logged.
//
// MaxRunning is max_streams: a request with several choices is one stream and counts for several, so the threads always
// suffice. Threads are made as they are needed and kept until Stop.
//
// If the model is not named, asks the upstream for it, which blocks for as long as connect_timeout + silence_timeout
// (at most 10 s of the latter). InvalidArgument if the options are wrong, Unavailable if the upstream cannot be reached
// or gives no list of models. If it is named nothing is asked, and the upstream may come up later. `metrics` must
// outlive the engine. The process must ignore SIGPIPE (base::ShutdownSignal sees to that).
absl::StatusOr<std::unique_ptr<Engine>> CreateUpstreamEngine(const UpstreamOptions& options, base::Metrics* metrics);

}  // namespace runnel::inference
