#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/metrics.h"
#include "services/inference/engines/upstream/upstream_continuation.h"
#include "services/inference/engines/upstream/upstream_request.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

struct UpstreamOptions {
  std::vector<std::string> urls;  // http://host:port[/v1] or https://..., see upstream_url.h; 1 to 64
  std::string api_key;            // bearer key; empty: none is sent
  std::string ca_file;            // https: PEM file of the authorities to trust; empty: the system's
  std::string client_cert_file;   // https: PEM file of a certificate to present; empty: none
  std::string client_key_file;    // https: PEM file of its key
  std::string model;              // the upstream's name of the model; empty: the first that it lists at the start
  std::string model_id;           // the name that our clients use; empty: the same
  // Replaces the two above for several models: the name that our clients use, and the upstream's.
  std::vector<std::pair<std::string, std::string>> models;
  TokenLimitName token_limit_name = TokenLimitName::kMaxTokens;          // of a chat whose client did not choose one
  std::vector<std::string> extra_fields = DefaultUpstreamExtraFields();  // to forward, see CheckUpstreamFields
  UpstreamContinue continuation = UpstreamContinue::kNever;              // of generations that were begun elsewhere
  uint32_t threads = 1;                                                  // event loops, 1 to 64
  uint32_t max_streams = 4096;
  uint32_t max_streams_each = 0;  // per upstream; 0: only max_streams
  // See UpstreamBreaker.
  uint32_t max_failures = 5;
  absl::Duration failure_pause = absl::Seconds(10);
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration write_timeout = absl::Seconds(10);
  absl::Duration first_byte_timeout = absl::Minutes(5);  // from when the request is written
  absl::Duration first_token_timeout = absl::Minutes(5);
  absl::Duration next_token_timeout = absl::Minutes(1);
  absl::Duration total_timeout = absl::Hours(6);  // of a generation, over all servers that it tries
  // How long to wait for the usage once every choice has its finish reason, and for the end of the response, after
  // which the connection can be reused.
  absl::Duration linger = absl::Seconds(2);
  // Tokens of few streams are gathered for up to this long, see UpstreamLoop.
  absl::Duration flush_interval = absl::Milliseconds(5);
  absl::Duration max_idle = absl::Seconds(30);     // of a kept connection
  size_t max_event_bytes = size_t{1} << 20;        // of one event, and of one line of it
  uint64_t max_output_bytes = uint64_t{16} << 20;  // of text, over all choices of a generation
};

// An engine that sends generations to OpenAI-compatible servers (vLLM, llama-server, Ollama): one streaming request
// each, all on a few event loops. Prompts, outputs and keys are never logged.
//
// Several servers are assumed to have the same models. The server with the fewest streams gets the next one; if it
// fails before the first token, another is tried; a server that keeps failing is skipped for a while.
//
// MaxRunning is max_streams: a request with several choices is one stream but counts as several.
//
// Without a model name, asks the upstream for its models, which blocks for up to connect_timeout + first_byte_timeout
// (at most 10 s of the latter), or until `stopped` returns true. InvalidArgument if the options are wrong or a file of
// a certificate cannot be used, Unavailable if the upstream cannot be reached or returns no list of models. With a name
// nothing is asked, and the upstream may start later. `metrics` must outlive the engine. The process must ignore
// SIGPIPE, as base::ShutdownSignal does.
absl::StatusOr<std::unique_ptr<Engine>> CreateUpstreamEngine(const UpstreamOptions& options, base::Metrics* metrics,
                                                             const std::function<bool()>& stopped = nullptr);

// OK if one of the servers responds to GET /models, with any status but 401, 403 and 5xx, which is enough to serve
// models that are named. Otherwise Unavailable, with the reason of the last server. Blocks like CreateUpstreamEngine,
// for each server.
absl::Status CheckUpstreamIsReady(const UpstreamOptions& options, const std::function<bool()>& stopped = nullptr);

}  // namespace runnel::inference
