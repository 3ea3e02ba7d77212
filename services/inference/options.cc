#include "services/inference/options.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/message_limits.h"
#include "services/base/status_macros.h"
#include "services/inference/check_flag.h"
#include "services/inference/log_flags.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:50051",
          "address for gRPC: host:port, or :port for every address; port 0: a free one");
ABSL_FLAG(std::string, admin_listen, "127.0.0.1:9090",
          "address for /livez, /readyz and /metrics: host:port, or :port for every address");
ABSL_FLAG(uint32_t, max_grpc_connections, 1024, "limit of open gRPC connections; further ones are closed immediately");
ABSL_FLAG(uint32_t, max_grpc_streams, 1000,
          "limit of open streams per gRPC connection; gRPC clients wait for a free one");
ABSL_FLAG(bool, reflection, false, "gRPC server reflection, for grpcurl");
ABSL_FLAG(std::string, log_level, "info", "lowest level to log: trace, debug, info, warn, error or off");
ABSL_FLAG(std::string, replica, "", "name of this replica; empty: host name and process id");
ABSL_FLAG(absl::Duration, drain_notice, absl::Seconds(0),
          "time after SIGTERM in which requests are still accepted while /readyz fails, so that clients notice first");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "time after --drain_notice for running generations to end, before they fail with a retryable code, and for "
          "readers to "
          "come back for ended ones");
ABSL_FLAG(absl::Duration, drain_linger, absl::Seconds(0),
          "time within --drain_timeout to keep a generation that was read to its end, for a reader whose connection "
          "broke at that moment");
ABSL_FLAG(bool, deliver_reasoning, true,
          "delivery of the model's reasoning to clients; without it, reasoning still counts in usage and progress");

ABSL_FLAG(std::string, engine, "llama",
          "backend: llama (a GGUF model in this process), upstream (OpenAI-compatible servers) or scripted (no model)");
ABSL_FLAG(absl::Duration, engine_stall_timeout, absl::Seconds(60),
          "time without a step of an engine that has work, after which /readyz fails, and after twice that /livez; 0: "
          "no limit");
ABSL_FLAG(std::string, model, "", "llama: path of the GGUF file");
ABSL_FLAG(std::string, model_id, "", "model name that clients use; empty: taken from the file or the engine");
ABSL_FLAG(uint32_t, llama_sequences, 8, "llama: choices decoded at the same time, 1 to 60");
ABSL_FLAG(uint32_t, llama_context, 2048, "llama: limit of prompt and output of one choice together (tokens)");
ABSL_FLAG(uint32_t, llama_threads, 0,
          "llama: threads that decode; 0: all cores but one, because threads that spin next to the bridges cost more "
          "than they gain");
ABSL_FLAG(bool, llama_exact, true,
          "llama: the same text for the same request and seed, whatever else is decoded; costs some speed");
ABSL_FLAG(
    std::string, llama_chat_template, "",
    "llama: path of a file with a Jinja chat template, or name of a built-in one of llama.cpp, for example chatml; "
    "empty: the model's own");
ABSL_FLAG(absl::Duration, llama_grammar_step_timeout, absl::Milliseconds(100),
          "llama: time limit for holding one token to an output format or to the tools; a generation that exceeds it "
          "fails");
ABSL_FLAG(std::string, llama_shared_preamble_file, "",
          "llama: file with a common beginning of prompts, for example an application's system message, whose KV cache "
          "is shared between principals; empty: nothing is shared");
ABSL_FLAG(std::vector<std::string>, upstream_url, {},
          "upstream: base URLs of the servers, comma-separated, for example http://127.0.0.1:8000/v1");
ABSL_FLAG(std::string, upstream_model, "", "upstream: model to request; empty: the first one that the server lists");
ABSL_FLAG(std::vector<std::string>, upstream_models, {},
          "upstream: several models instead of --upstream_model and --model_id, comma-separated: OURS=THEIRS each");
ABSL_FLAG(std::string, upstream_api_key_file, "", "upstream: file with the bearer key");
ABSL_FLAG(std::string, upstream_ca_file, "",
          "upstream: PEM file of the certificate authorities for https; empty: the system's");
ABSL_FLAG(std::string, upstream_client_cert_file, "",
          "upstream: PEM file of a certificate to present to https servers; empty: none");
ABSL_FLAG(std::string, upstream_client_key_file, "", "upstream: PEM file of the certificate's key");
ABSL_FLAG(uint32_t, upstream_threads, 1, "upstream: event loops, each of which serves thousands of streams");
ABSL_FLAG(uint32_t, upstream_streams, 4096, "upstream: limit of concurrent streams");
ABSL_FLAG(uint32_t, upstream_streams_each, 0,
          "upstream: limit of concurrent streams per server; 0: only --upstream_streams");
ABSL_FLAG(uint32_t, upstream_max_failures, 5, "upstream: consecutive failures before a server is skipped");
ABSL_FLAG(absl::Duration, upstream_failure_pause, absl::Seconds(10),
          "upstream: time for which such a server is skipped before one request probes it");
ABSL_FLAG(absl::Duration, upstream_flush_interval, absl::Milliseconds(5),
          "upstream: longest time for which tokens are gathered while few streams have some, to save CPU time; first "
          "tokens and those after a pause are not delayed");
ABSL_FLAG(absl::Duration, upstream_connect_timeout, absl::Seconds(5), "upstream: time limit for connecting");
ABSL_FLAG(absl::Duration, upstream_first_byte_timeout, absl::Minutes(5),
          "upstream: time limit for the first byte of the response once the request is sent");
ABSL_FLAG(absl::Duration, upstream_first_token_timeout, absl::Minutes(5),
          "upstream: time limit for the first token once connected");
ABSL_FLAG(absl::Duration, upstream_next_token_timeout, absl::Minutes(1), "upstream: time limit for each further token");
ABSL_FLAG(absl::Duration, upstream_total_timeout, absl::Hours(6), "upstream: time limit for a whole generation");
ABSL_FLAG(absl::Duration, upstream_idle_timeout, absl::Seconds(30),
          "upstream: time after which an unused connection is closed; 0: none is reused");
ABSL_FLAG(std::string, upstream_max_tokens_field, "max_tokens",
          "upstream: field for the token limit of chats whose client did not use one of OpenAI's names: max_tokens or "
          "max_completion_tokens");
ABSL_FLAG(
    std::vector<std::string>, upstream_extra_fields, runnel::inference::DefaultUpstreamExtraFields(),
    "upstream: fields of requests to forward to the servers unchanged, comma-separated; a name may end in *, and * "
    "alone forwards all");
ABSL_FLAG(std::string, upstream_continue, "never",
          "upstream: way to ask a server for the rest of an output whose replica is gone: never, prompt (text behind a "
          "plain prompt), final_message (last message, with continue_final_message), prefill (last message alone) or "
          "replay (whole output again, compared)");
ABSL_FLAG(double, scripted_tokens_per_second, 30, "scripted: pace of each generation (tokens per second)");
ABSL_FLAG(absl::Duration, scripted_first_token, absl::Milliseconds(50), "scripted: delay of the first token");
ABSL_FLAG(uint32_t, scripted_tokens, 120, "scripted: length of the output (tokens)");
ABSL_FLAG(
    std::string, scripted_salt, "",
    "scripted: text before each word, as SALT:INDEX|word, for tests that must know which replica made a token: up "
    "to 32 letters, digits, - and _; empty: words only");

ABSL_FLAG(uint32_t, max_running, 0, "limit of choices that run at the same time; 0: as many as the engine supports");
ABSL_FLAG(uint32_t, max_waiting, 1024, "limit of generations that wait for the engine; further ones are rejected");
ABSL_FLAG(uint32_t, prepare_threads, 2, "threads that check and tokenise requests");
ABSL_FLAG(uint64_t, max_preparing, 4096, "limit of starts in preparation; further ones are rejected");
ABSL_FLAG(uint64_t, max_waiting_bytes, uint64_t{64} << 20,
          "memory limit for requests in preparation or waiting for the engine (bytes); further ones are rejected");
ABSL_FLAG(absl::Duration, default_detach_timeout, absl::Seconds(60),
          "time without a reader after which a generation is cancelled, for requests that do not set it");
ABSL_FLAG(absl::Duration, retention, absl::Minutes(10), "time for which a log can be read after its end");
ABSL_FLAG(uint64_t, retention_bytes, uint64_t{256} << 20,
          "memory limit for logs that have ended, with the input kept with them (bytes); the oldest are purged first");
ABSL_FLAG(uint64_t, max_tombstones, 100'000,
          "limit of ids remembered after their logs were purged, for which readers get GENERATION_EXPIRED; the oldest "
          "are forgotten first");
ABSL_FLAG(uint64_t, max_request_bytes, runnel::base::kGrpcDefaultMessageBytes,
          "size limit of a request as a gRPC message (bytes); bridges respond with 413 to larger ones");
ABSL_FLAG(absl::Duration, claim_lease, absl::Seconds(10),
          "time for which a bridge may hold an idempotency key before it starts a generation");
ABSL_FLAG(uint64_t, max_claims, 65'536,
          "limit of idempotency keys that bridges hold or that name generations of other replicas; at the limit the "
          "oldest of the latter are forgotten, then starts are rejected");
ABSL_FLAG(uint32_t, max_attachments, 20'000, "limit of attachments on one Link");
ABSL_FLAG(uint64_t, max_batch_bytes, 256 << 10, "limit of text in one batch of a Link (bytes)");
ABSL_FLAG(uint64_t, max_attachment_bytes, 16 << 10,
          "limit of text of one attachment in a batch, which is what a lagging reader gets at a time (bytes)");

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
  return absl::InvalidArgumentError(absl::StrCat("--engine is '", name, "': expected llama, upstream or scripted"));
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseModels(const std::vector<std::string>& pairs) {
  std::vector<std::pair<std::string, std::string>> models;
  for (const std::string& pair : pairs) {
    const size_t equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == pair.size()) {
      return absl::InvalidArgumentError(absl::StrCat("--upstream_models: '", pair, "': expected OURS=THEIRS"));
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
    return absl::NotFoundError(
        absl::StrCat("--upstream_api_key_file: cannot read a key from the first line of '", path, "'"));
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
  // Editors end a file with one.
  if (text.ends_with('\n')) text.pop_back();
  if (!file || text.empty()) {
    return absl::NotFoundError(
        absl::StrCat("--llama_shared_preamble_file: '", path, "' is missing, unreadable or empty"));
  }
  return text;
}

absl::Status ReadLlamaFlags(LlamaOptions* llama) {
  llama->model_path = absl::GetFlag(FLAGS_model);
  llama->model_id = absl::GetFlag(FLAGS_model_id);
  llama->sequences = absl::GetFlag(FLAGS_llama_sequences);
  llama->context = absl::GetFlag(FLAGS_llama_context);
  llama->threads = absl::GetFlag(FLAGS_llama_threads);
  llama->exact = absl::GetFlag(FLAGS_llama_exact);
  llama->chat_template = absl::GetFlag(FLAGS_llama_chat_template);
  llama->grammar_step_timeout = absl::GetFlag(FLAGS_llama_grammar_step_timeout);
  ASSIGN_OR_RETURN(llama->shared_preamble, ReadPreamble(absl::GetFlag(FLAGS_llama_shared_preamble_file)));
  return absl::OkStatus();
}

absl::Status ReadUpstreamFlags(UpstreamOptions* upstream) {
  upstream->urls = absl::GetFlag(FLAGS_upstream_url);
  upstream->model = absl::GetFlag(FLAGS_upstream_model);
  upstream->model_id = absl::GetFlag(FLAGS_model_id);
  ASSIGN_OR_RETURN(upstream->models, ParseModels(absl::GetFlag(FLAGS_upstream_models)));
  ASSIGN_OR_RETURN(upstream->api_key, ReadKeyFile(absl::GetFlag(FLAGS_upstream_api_key_file)));
  const std::string limit_field = absl::GetFlag(FLAGS_upstream_max_tokens_field);
  if (limit_field != "max_tokens" && limit_field != "max_completion_tokens") {
    return absl::InvalidArgumentError(
        absl::StrCat("--upstream_max_tokens_field is '", limit_field, "', want max_tokens or max_completion_tokens"));
  }
  upstream->token_limit_name =
      limit_field == "max_tokens" ? TokenLimitName::kMaxTokens : TokenLimitName::kMaxCompletionTokens;
  upstream->extra_fields = absl::GetFlag(FLAGS_upstream_extra_fields);
  const auto continuation = ParseUpstreamContinue(absl::GetFlag(FLAGS_upstream_continue));
  if (!continuation.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--upstream_continue is ", continuation.status().message()));
  }
  upstream->continuation = *continuation;
  upstream->ca_file = absl::GetFlag(FLAGS_upstream_ca_file);
  upstream->client_cert_file = absl::GetFlag(FLAGS_upstream_client_cert_file);
  upstream->client_key_file = absl::GetFlag(FLAGS_upstream_client_key_file);
  upstream->threads = absl::GetFlag(FLAGS_upstream_threads);
  upstream->max_streams = absl::GetFlag(FLAGS_upstream_streams);
  upstream->max_streams_each = absl::GetFlag(FLAGS_upstream_streams_each);
  upstream->max_failures = absl::GetFlag(FLAGS_upstream_max_failures);
  upstream->failure_pause = absl::GetFlag(FLAGS_upstream_failure_pause);
  upstream->flush_interval = absl::GetFlag(FLAGS_upstream_flush_interval);
  upstream->connect_timeout = absl::GetFlag(FLAGS_upstream_connect_timeout);
  upstream->first_byte_timeout = absl::GetFlag(FLAGS_upstream_first_byte_timeout);
  upstream->first_token_timeout = absl::GetFlag(FLAGS_upstream_first_token_timeout);
  upstream->next_token_timeout = absl::GetFlag(FLAGS_upstream_next_token_timeout);
  upstream->total_timeout = absl::GetFlag(FLAGS_upstream_total_timeout);
  upstream->max_idle = absl::GetFlag(FLAGS_upstream_idle_timeout);
  return absl::OkStatus();
}

absl::Status ReadEngineFlags(Options* options) {
  RETURN_IF_ERROR(ReadLlamaFlags(&options->llama));
  RETURN_IF_ERROR(ReadUpstreamFlags(&options->upstream));
  if (const std::string id = absl::GetFlag(FLAGS_model_id); !id.empty()) options->scripted.model_id = id;
  options->scripted.script.tokens_per_second = absl::GetFlag(FLAGS_scripted_tokens_per_second);
  options->scripted.script.first_token = absl::GetFlag(FLAGS_scripted_first_token);
  options->scripted.script.tokens = absl::GetFlag(FLAGS_scripted_tokens);
  options->scripted.script.salt = absl::GetFlag(FLAGS_scripted_salt);
  return absl::OkStatus();
}

absl::Status CheckEngineFlags(const Options& options) {
  if (options.engine == EngineKind::kLlama && options.llama.model_path.empty()) {
    return absl::InvalidArgumentError(
        "--model is empty: set it to the path of a GGUF file, or use --engine=upstream or --engine=scripted");
  }
  if (options.engine == EngineKind::kUpstream && options.upstream.urls.empty()) {
    return absl::InvalidArgumentError(
        "--upstream_url is empty: set it to the base URL of a server, for example http://127.0.0.1:8000/v1");
  }
  RETURN_IF_ERROR(CheckFlag("llama_sequences", options.llama.sequences, 1u, 60u));
  RETURN_IF_ERROR(CheckFlag("llama_context", options.llama.context, 16u, 1u << 20));
  RETURN_IF_ERROR(CheckFlag("llama_threads", options.llama.threads, 0u, 512u));
  RETURN_IF_ERROR(CheckFlag("upstream_streams", options.upstream.max_streams, 1u, 1'000'000u));
  RETURN_IF_ERROR(CheckFlag("upstream_threads", options.upstream.threads, 1u, 64u));
  RETURN_IF_ERROR(CheckFlag("upstream_max_failures", options.upstream.max_failures, 1u, 1000u));
  RETURN_IF_ERROR(CheckDuration("llama_grammar_step_timeout", options.llama.grammar_step_timeout, absl::Milliseconds(1),
                                absl::Minutes(1)));
  if (options.engine_stall_timeout != absl::ZeroDuration()) {
    RETURN_IF_ERROR(
        CheckDuration("engine_stall_timeout", options.engine_stall_timeout, absl::Seconds(1), absl::Hours(24)));
  }
  if (const std::string& salt = options.scripted.script.salt; !IsValidSalt(salt)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--scripted_salt is '", salt, "': expected up to 32 letters, digits, - and _"));
  }
  return CheckFlag("scripted_tokens_per_second", options.scripted.script.tokens_per_second, 0.001, 1e6);
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
  options.engine_stall_timeout = absl::GetFlag(FLAGS_engine_stall_timeout);
  RETURN_IF_ERROR(ReadEngineFlags(&options));
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
  options.manager.deliver_reasoning = absl::GetFlag(FLAGS_deliver_reasoning);
  options.manager.retention_bytes = absl::GetFlag(FLAGS_retention_bytes);
  options.manager.claim_lease = absl::GetFlag(FLAGS_claim_lease);
  RETURN_IF_ERROR(CheckDuration("claim_lease", options.manager.claim_lease, absl::Seconds(1), absl::Minutes(10)));
  options.manager.max_claims = absl::GetFlag(FLAGS_max_claims);
  RETURN_IF_ERROR(CheckFlag("max_claims", options.manager.max_claims, size_t{1}, size_t{100'000'000}));
  options.manager.max_tombstones = absl::GetFlag(FLAGS_max_tombstones);
  RETURN_IF_ERROR(CheckFlag("max_tombstones", options.manager.max_tombstones, size_t{1}, size_t{100'000'000}));
  RETURN_IF_ERROR(ReadLogFlags(&options.log, &options.manager));
  options.log.retention = options.manager.retention;
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
  options.link.defaults.detach_timeout = absl::GetFlag(FLAGS_default_detach_timeout);
  return options;
}

}  // namespace runnel::inference
