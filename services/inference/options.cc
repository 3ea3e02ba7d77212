#include "services/inference/options.h"

#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/message_limits.h"
#include "services/base/status_macros.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:50051",
          "host:port for gRPC, or :port for every address; port 0 takes a free one");
ABSL_FLAG(std::string, admin_listen, "127.0.0.1:9090", "host:port for /livez, /readyz and /metrics, or :port");
ABSL_FLAG(uint32_t, max_grpc_connections, 1024, "open gRPC connections; those above are closed at once");
ABSL_FLAG(uint32_t, max_grpc_streams, 1000, "open streams of one gRPC connection; gRPC clients wait for a free one");
ABSL_FLAG(bool, reflection, false, "serve gRPC reflection, for grpcurl");
ABSL_FLAG(std::string, log_level, "info", "trace, debug, info, warn, error or off");
ABSL_FLAG(std::string, replica, "", "name of this replica; empty: host name and process id");
ABSL_FLAG(absl::Duration, drain_notice, absl::Seconds(0),
          "after SIGTERM: how long to go on accepting while readiness is off, so that clients learn of it first");
ABSL_FLAG(
    absl::Duration, drain_timeout, absl::Seconds(30),
    "after that: how long running generations may take before they fail with a retryable code, and how long their "
    "ends are kept for readers on their way back");
ABSL_FLAG(
    absl::Duration, drain_linger, absl::Seconds(0),
    "within --drain_timeout: how long an answer that was read to its end is kept all the same, for a reader whose "
    "connection broke just then");

ABSL_FLAG(std::string, engine, "llama",
          "llama (a GGUF model in this process), upstream (an OpenAI-compatible server) or scripted (no model)");
ABSL_FLAG(absl::Duration, engine_stall_timeout, absl::Seconds(60),
          "how long the engine may have work without taking a step before /readyz fails, and /livez after twice that; "
          "0: no limit");
ABSL_FLAG(std::string, model, "", "llama: path of the GGUF file");
ABSL_FLAG(std::string, model_id, "", "id that clients name the model by; empty: from the file or the engine");
ABSL_FLAG(uint32_t, llama_sequences, 8, "llama: choices decoded at once, 1 to 60");
ABSL_FLAG(uint32_t, llama_context, 2048, "llama: prompt and answer of one choice together, in tokens");
ABSL_FLAG(uint32_t, llama_threads, 0,
          "llama: threads that decode; 0: all cores but one, as threads that spin beside the bridges cost more than "
          "they give");
ABSL_FLAG(bool, llama_exact, true,
          "llama: the same request and seed give the same text whatever else is decoded; costs some speed");
ABSL_FLAG(std::string, llama_chat_template, "",
          "llama: name of a chat template of llama.cpp, such as chatml; empty: the model's own");
ABSL_FLAG(absl::Duration, llama_grammar_step_timeout, absl::Milliseconds(100),
          "llama: work for one token of an answer that is held to a format; a generation that needs longer fails");
ABSL_FLAG(
    std::string, llama_shared_preamble_file, "",
    "llama: file with the beginning of many prompts, such as the system message of an application, whose KV cache "
    "principals share; empty: each principal's prompts are its own");
ABSL_FLAG(std::vector<std::string>, upstream_url, {},
          "upstream: base URL of the server, such as http://127.0.0.1:8000/v1; several servers: with commas between");
ABSL_FLAG(std::string, upstream_model, "", "upstream: model to ask for; empty: the first that the server lists");
ABSL_FLAG(std::vector<std::string>, upstream_models, {},
          "upstream: several models, as OURS=THEIRS with commas between; instead of --upstream_model and --model_id");
ABSL_FLAG(std::string, upstream_api_key_file, "", "upstream: file that holds the bearer key");
ABSL_FLAG(std::string, upstream_ca_file, "", "upstream: PEM file of authorities for https; empty: the system's");
ABSL_FLAG(uint32_t, upstream_streams, 256, "upstream: streams at once, each on a thread of its own");
ABSL_FLAG(uint32_t, upstream_streams_each, 0, "upstream: streams at once to each server; 0: no limit of its own");
ABSL_FLAG(uint32_t, upstream_max_failures, 5, "upstream: after so many in a row a server is left alone");
ABSL_FLAG(absl::Duration, upstream_failure_pause, absl::Seconds(10),
          "upstream: for so long; then one request tries it");
ABSL_FLAG(absl::Duration, upstream_connect_timeout, absl::Seconds(5), "upstream: how long connecting may take");
ABSL_FLAG(absl::Duration, upstream_first_token_timeout, absl::Minutes(5),
          "upstream: how long the first token may take, from when the connection stands");
ABSL_FLAG(absl::Duration, upstream_next_token_timeout, absl::Minutes(1),
          "upstream: how long each further one may take");
ABSL_FLAG(double, scripted_tokens_per_second, 30, "scripted: pace of each generation");
ABSL_FLAG(absl::Duration, scripted_first_token, absl::Milliseconds(50), "scripted: delay of the first token");
ABSL_FLAG(uint32_t, scripted_tokens, 120, "scripted: tokens of an answer");

ABSL_FLAG(uint32_t, max_running, 0, "choices worked on at once; 0: as many as the engine can");
ABSL_FLAG(uint32_t, max_waiting, 1024, "generations that may wait for the engine; beyond, they are refused");
ABSL_FLAG(uint32_t, prepare_threads, 2, "threads that check and tokenise requests");
ABSL_FLAG(uint64_t, max_preparing, 4096, "starts that may be in preparation; beyond, they are rejected");
ABSL_FLAG(uint64_t, max_waiting_bytes, uint64_t{64} << 20,
          "memory for requests in preparation or waiting for the engine, in bytes; beyond, further ones are rejected");
ABSL_FLAG(uint32_t, default_max_tokens, 512, "max_tokens of a request that does not say");
ABSL_FLAG(absl::Duration, default_detach_timeout, absl::Seconds(60),
          "how long a generation goes on with no reader, if the request does not say");
ABSL_FLAG(absl::Duration, retention, absl::Minutes(10), "how long a log that has ended can be read");
ABSL_FLAG(uint64_t, retention_bytes, uint64_t{256} << 20,
          "memory for logs that have ended, in bytes; the oldest are purged first");
ABSL_FLAG(uint64_t, max_tombstones, 100'000,
          "ids remembered after their logs were purged, so that readers are told so; beyond, the oldest are unknown");
ABSL_FLAG(uint64_t, max_request_bytes, runnel::base::kGrpcDefaultMessageBytes,
          "largest request, in bytes of its gRPC message; bridges answer 413 to larger ones");
ABSL_FLAG(absl::Duration, claim_lease, absl::Seconds(10),
          "how long a bridge may hold an idempotency key that it is about to start a generation with");
ABSL_FLAG(
    uint64_t, max_claims, 65'536,
    "idempotency keys that are held, or that name generations of other replicas; beyond, the oldest of the latter "
    "are forgotten, then starts are refused");
ABSL_FLAG(uint32_t, max_attachments, 20'000, "attachments on one Link");
ABSL_FLAG(uint64_t, max_batch_bytes, 256 << 10, "text of one batch of a Link, in bytes");
ABSL_FLAG(uint64_t, max_attachment_bytes, 16 << 10,
          "text of one attachment in a batch, in bytes: what a reader that lags gets at once");

namespace runnel::inference {
namespace {

std::string DefaultReplica() {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return absl::StrCat(host.data(), "-", getpid());
}

absl::StatusOr<EngineKind> ParseEngine(const std::string& name) {
  if (name == "scripted") return EngineKind::kScripted;
  if (name == "llama") return EngineKind::kLlama;
  if (name == "upstream") return EngineKind::kUpstream;
  return absl::InvalidArgumentError(absl::StrCat("--engine is '", name, "', want llama, upstream or scripted"));
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseModels(const std::vector<std::string>& pairs) {
  std::vector<std::pair<std::string, std::string>> models;
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == pair.size()) {
      return absl::InvalidArgumentError(absl::StrCat("--upstream_models: '", pair, "' is not OURS=THEIRS"));
    }
    models.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return models;
}

absl::StatusOr<std::string> ReadKeyFile(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path);
  std::string key;
  if (!file || !std::getline(file, key)) {
    return absl::NotFoundError(absl::StrCat("--upstream_api_key_file: cannot read a key from '", path, "'"));
  }
  // Some editors begin a file with a byte order mark.
  constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";
  if (absl::StartsWith(key, kByteOrderMark)) key.erase(0, kByteOrderMark.size());
  absl::StripAsciiWhitespace(&key);
  return key;
}

absl::StatusOr<std::string> ReadPreamble(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  // An editor adds it.
  if (text.ends_with('\n')) text.pop_back();
  if (!file || text.empty()) {
    return absl::NotFoundError(absl::StrCat("--llama_shared_preamble_file: '", path, "' cannot be read, or is empty"));
  }
  return text;
}

template <typename T>
absl::Status CheckFlag(const char* name, T value, T least, T most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", name, " is ", value, ", want ", least, " to ", most));
}

absl::Status CheckDuration(const char* name, absl::Duration value, absl::Duration least, absl::Duration most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", name, " is ", absl::FormatDuration(value), ", want ",
                                                 absl::FormatDuration(least), " to ", absl::FormatDuration(most)));
}

absl::Status CheckEngineFlags(const Options& options) {
  if (options.engine == EngineKind::kLlama && options.model.empty()) {
    return absl::InvalidArgumentError("--engine=llama needs --model, the path of a GGUF file");
  }
  if (options.engine == EngineKind::kUpstream && options.upstream_urls.empty()) {
    return absl::InvalidArgumentError("--engine=upstream needs --upstream_url");
  }
  RETURN_IF_ERROR(CheckFlag("llama_sequences", options.llama_sequences, 1u, 60u));
  RETURN_IF_ERROR(CheckFlag("llama_context", options.llama_context, 16u, 1u << 20));
  RETURN_IF_ERROR(CheckFlag("llama_threads", options.llama_threads, 0u, 512u));
  RETURN_IF_ERROR(CheckFlag("upstream_streams", options.upstream_streams, 1u, 4096u));
  RETURN_IF_ERROR(CheckFlag("upstream_max_failures", options.upstream_max_failures, 1u, 1000u));
  RETURN_IF_ERROR(CheckDuration("llama_grammar_step_timeout", options.llama_grammar_step_timeout, absl::Milliseconds(1),
                                absl::Minutes(1)));
  if (options.engine_stall_timeout != absl::ZeroDuration()) {
    RETURN_IF_ERROR(
        CheckDuration("engine_stall_timeout", options.engine_stall_timeout, absl::Seconds(1), absl::Hours(24)));
  }
  return CheckFlag("scripted_tokens_per_second", options.script.tokens_per_second, 0.001, 1e6);
}

}  // namespace

absl::StatusOr<Options> OptionsFromFlags() {
  Options options;
  options.grpc.address = absl::GetFlag(FLAGS_listen);
  options.grpc.reflection = absl::GetFlag(FLAGS_reflection);
  options.grpc.limits.max_connections = absl::GetFlag(FLAGS_max_grpc_connections);
  RETURN_IF_ERROR(CheckFlag("max_grpc_connections", options.grpc.limits.max_connections, 1u, 100'000u));
  options.grpc.limits.max_streams = absl::GetFlag(FLAGS_max_grpc_streams);
  RETURN_IF_ERROR(CheckFlag("max_grpc_streams", options.grpc.limits.max_streams, 1u, 1'000'000u));
  options.admin_listen = absl::GetFlag(FLAGS_admin_listen);
  options.log_level = absl::GetFlag(FLAGS_log_level);
  options.drain_notice = absl::GetFlag(FLAGS_drain_notice);
  options.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);

  ASSIGN_OR_RETURN(options.engine, ParseEngine(absl::GetFlag(FLAGS_engine)));
  options.model = absl::GetFlag(FLAGS_model);
  options.model_id = absl::GetFlag(FLAGS_model_id);
  options.llama_sequences = absl::GetFlag(FLAGS_llama_sequences);
  options.llama_context = absl::GetFlag(FLAGS_llama_context);
  options.llama_threads = absl::GetFlag(FLAGS_llama_threads);
  options.llama_exact = absl::GetFlag(FLAGS_llama_exact);
  options.llama_chat_template = absl::GetFlag(FLAGS_llama_chat_template);
  options.llama_grammar_step_timeout = absl::GetFlag(FLAGS_llama_grammar_step_timeout);
  ASSIGN_OR_RETURN(options.llama_shared_preamble, ReadPreamble(absl::GetFlag(FLAGS_llama_shared_preamble_file)));
  options.engine_stall_timeout = absl::GetFlag(FLAGS_engine_stall_timeout);
  options.upstream_urls = absl::GetFlag(FLAGS_upstream_url);
  options.upstream_model = absl::GetFlag(FLAGS_upstream_model);
  ASSIGN_OR_RETURN(options.upstream_models, ParseModels(absl::GetFlag(FLAGS_upstream_models)));
  ASSIGN_OR_RETURN(options.upstream_api_key, ReadKeyFile(absl::GetFlag(FLAGS_upstream_api_key_file)));
  options.upstream_ca_file = absl::GetFlag(FLAGS_upstream_ca_file);
  options.upstream_streams = absl::GetFlag(FLAGS_upstream_streams);
  options.upstream_streams_each = absl::GetFlag(FLAGS_upstream_streams_each);
  options.upstream_max_failures = absl::GetFlag(FLAGS_upstream_max_failures);
  options.upstream_failure_pause = absl::GetFlag(FLAGS_upstream_failure_pause);
  options.upstream_connect_timeout = absl::GetFlag(FLAGS_upstream_connect_timeout);
  options.upstream_first_token_timeout = absl::GetFlag(FLAGS_upstream_first_token_timeout);
  options.upstream_next_token_timeout = absl::GetFlag(FLAGS_upstream_next_token_timeout);
  options.script.tokens_per_second = absl::GetFlag(FLAGS_scripted_tokens_per_second);
  options.script.first_token = absl::GetFlag(FLAGS_scripted_first_token);
  options.script.tokens = absl::GetFlag(FLAGS_scripted_tokens);
  RETURN_IF_ERROR(CheckEngineFlags(options));

  options.manager.max_running = absl::GetFlag(FLAGS_max_running);
  options.manager.max_waiting = absl::GetFlag(FLAGS_max_waiting);
  options.manager.prepare_threads = absl::GetFlag(FLAGS_prepare_threads);
  RETURN_IF_ERROR(CheckFlag("prepare_threads", options.manager.prepare_threads, 1u, 256u));
  options.manager.max_preparing = absl::GetFlag(FLAGS_max_preparing);
  RETURN_IF_ERROR(CheckFlag("max_preparing", options.manager.max_preparing, size_t{1}, size_t{1'000'000}));
  options.manager.max_waiting_bytes = absl::GetFlag(FLAGS_max_waiting_bytes);
  RETURN_IF_ERROR(CheckFlag("max_waiting_bytes", options.manager.max_waiting_bytes, size_t{1} << 16, size_t{1} << 40));
  options.manager.retention = absl::GetFlag(FLAGS_retention);
  options.manager.drain_linger = absl::GetFlag(FLAGS_drain_linger);
  options.manager.retention_bytes = absl::GetFlag(FLAGS_retention_bytes);
  options.manager.claim_lease = absl::GetFlag(FLAGS_claim_lease);
  if (options.manager.claim_lease < absl::Seconds(1) || options.manager.claim_lease > absl::Minutes(10)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--claim_lease is ", absl::FormatDuration(options.manager.claim_lease), ", want 1s to 10m"));
  }
  options.manager.max_claims = absl::GetFlag(FLAGS_max_claims);
  RETURN_IF_ERROR(CheckFlag("max_claims", options.manager.max_claims, size_t{1}, size_t{100'000'000}));
  options.manager.max_tombstones = absl::GetFlag(FLAGS_max_tombstones);
  RETURN_IF_ERROR(CheckFlag("max_tombstones", options.manager.max_tombstones, size_t{1}, size_t{100'000'000}));
  const std::string replica = absl::GetFlag(FLAGS_replica);
  options.link.replica = replica.empty() ? DefaultReplica() : replica;
  options.link.max_attachments = absl::GetFlag(FLAGS_max_attachments);
  RETURN_IF_ERROR(CheckFlag("max_attachments", options.link.max_attachments, 1u, 1u << 20));
  options.link.max_batch_bytes = absl::GetFlag(FLAGS_max_batch_bytes);
  RETURN_IF_ERROR(CheckFlag("max_batch_bytes", options.link.max_batch_bytes, size_t{1} << 10, base::kMaxBatchBytes));
  options.link.max_attachment_bytes = absl::GetFlag(FLAGS_max_attachment_bytes);
  RETURN_IF_ERROR(
      CheckFlag("max_attachment_bytes", options.link.max_attachment_bytes, size_t{256}, base::kMaxAttachmentBytes));
  options.link.max_request_bytes = absl::GetFlag(FLAGS_max_request_bytes);
  RETURN_IF_ERROR(
      CheckFlag("max_request_bytes", options.link.max_request_bytes, base::kMinRequestBytes, base::kMaxRequestBytes));
  options.grpc.limits.max_request_bytes = options.link.max_request_bytes;
  options.link.defaults.max_tokens = absl::GetFlag(FLAGS_default_max_tokens);
  RETURN_IF_ERROR(CheckFlag("default_max_tokens", options.link.defaults.max_tokens, 1u, 1'000'000u));
  options.link.defaults.detach_timeout = absl::GetFlag(FLAGS_default_detach_timeout);
  return options;
}

}  // namespace runnel::inference
