#include "tests/bench/load/load_options.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

ABSL_FLAG(std::string, transport, "sse",
          "sse, chat, ws, wsproto, poll or grpc; sse-get or ws-get for a channel of a fan-out server");
ABSL_FLAG(std::string, address, "127.0.0.1:8080", "IPv4 address:port of the server");
ABSL_FLAG(std::string, path, "/sub/", "path prefix of sse-get and ws-get; the number of the stream is appended");
ABSL_FLAG(std::string, prompt, "",
          "prompt for an engine with a model, sampled greedily; the number of the stream is appended");
ABSL_FLAG(bool, mock, false, "whether bench-upstream-mock makes the tokens, behind the server; chat requires it");
ABSL_FLAG(int, streams, 1000, "number of streams, one connection each");
ABSL_FLAG(double, open_rate, 0, "connections to open per second, regardless of responses; 0: at most 64 at a time");
ABSL_FLAG(uint32_t, tokens, 0, "tokens of each stream; 0: enough for warm-up, window and slack");
ABSL_FLAG(double, pace, 30, "tokens per second of each stream");
ABSL_FLAG(bool, stepped, false, "whether all streams emit in the same step, like an engine that decodes one batch");
ABSL_FLAG(bool, parts, false, "with --mock: whether the streams are reasoning, text and two tool calls");
ABSL_FLAG(bool, idle, false, "whether the streams send nothing after `started`, to measure memory");
ABSL_FLAG(int, stalled, 0, "number of streams that are not read until the window is over");
ABSL_FLAG(double, stalled_pace, 2000, "tokens per second of the stalled streams");
ABSL_FLAG(absl::Duration, warmup, absl::Seconds(1), "time from the opening of the last stream to the window");
ABSL_FLAG(absl::Duration, slack, absl::Milliseconds(2500),
          "how much longer than warm-up and window the streams without --tokens last");
ABSL_FLAG(absl::Duration, window, absl::ZeroDuration(), "measured time; 0: the whole run");
ABSL_FLAG(absl::Duration, coalesce, absl::Microseconds(250),
          "shortest time between two reads, like a network card that gathers packets before it interrupts; 0: none");
ABSL_FLAG(bool, cut, false, "whether to cut the streams when the window is over; their ends are not verified");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(60), "time limit of the whole run");
ABSL_FLAG(std::vector<std::string>, pids, {}, "processes to measure: PID or name:PID or name:PID+PID, ...");

namespace runnel::bench {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<Transport, const char*>, 8> kTransports = {{{Transport::kSse, "sse"},
                                                                           {Transport::kChat, "chat"},
                                                                           {Transport::kSseGet, "sse-get"},
                                                                           {Transport::kWs, "ws"},
                                                                           {Transport::kWsProto, "wsproto"},
                                                                           {Transport::kWsGet, "ws-get"},
                                                                           {Transport::kPoll, "poll"},
                                                                           {Transport::kGrpc, "grpc"}}};
// The scripted engine's limit.
constexpr uint32_t kMaxTokens = 1'000'000;

absl::Status ReadAddress(LoadOptions* options) {
  const std::string address = absl::GetFlag(FLAGS_address);
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &options->port)) {
    return absl::InvalidArgumentError("--address must be address:port");
  }
  options->host = address.substr(0, colon);
  return absl::OkStatus();
}

absl::Status ReadTransport(LoadOptions* options) {
  for (const auto& [transport, name] : kTransports) {
    if (absl::GetFlag(FLAGS_transport) != name) continue;
    options->transport = transport;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--transport: unknown transport '", absl::GetFlag(FLAGS_transport), "'"));
}

uint32_t TokensOf(const LoadOptions& options) {
  if (const uint32_t given = absl::GetFlag(FLAGS_tokens); given > 0) return given;
  const double seconds = absl::ToDoubleSeconds(options.warmup + options.window + absl::GetFlag(FLAGS_slack));
  return static_cast<uint32_t>(std::min<double>(kMaxTokens, 1 + seconds * options.pace));
}

std::map<std::string, std::string> Metadata(const LoadOptions& options, int index) {
  if (!options.prompt.empty()) return {};
  const double pace = index < options.stalled ? options.stalled_pace : options.pace;
  const double tokens = options.tokens * (pace / options.pace);
  // Streams with the same pace are spread evenly over its interval, regardless of when they were opened.
  const double spread = options.stepped ? 0 : 1000 / pace * (static_cast<double>(index) / options.streams);
  std::map<std::string, std::string> metadata = {
      {"scripted.tokens", absl::StrCat(static_cast<uint32_t>(std::min<double>(tokens, kMaxTokens)))},
      {"scripted.tokens_per_second", absl::StrCat(pace)},
      {"scripted.first_token_ms", absl::StrCat(spread)},
      {"scripted.timestamps", "1"},
      {"scripted.stepped", options.stepped ? "1" : "0"}};
  if (options.idle) metadata["scripted.stall_at"] = "0";
  return metadata;
}

}  // namespace

absl::StatusOr<LoadOptions> LoadOptionsFromFlags() {
  LoadOptions options;
  if (absl::Status status = ReadAddress(&options); !status.ok()) return status;
  if (absl::Status status = ReadTransport(&options); !status.ok()) return status;
  options.path = absl::GetFlag(FLAGS_path);
  options.prompt = absl::GetFlag(FLAGS_prompt);
  options.streams = absl::GetFlag(FLAGS_streams);
  options.mock = absl::GetFlag(FLAGS_mock);
  options.open_rate = absl::GetFlag(FLAGS_open_rate);
  options.pace = absl::GetFlag(FLAGS_pace);
  options.stepped = absl::GetFlag(FLAGS_stepped);
  options.parts = absl::GetFlag(FLAGS_parts);
  options.idle = absl::GetFlag(FLAGS_idle);
  options.stalled = absl::GetFlag(FLAGS_stalled);
  options.stalled_pace = absl::GetFlag(FLAGS_stalled_pace);
  options.warmup = absl::GetFlag(FLAGS_warmup);
  options.window = absl::GetFlag(FLAGS_window);
  options.coalesce = absl::GetFlag(FLAGS_coalesce);
  options.cut = absl::GetFlag(FLAGS_cut);
  options.timeout = absl::GetFlag(FLAGS_timeout);
  options.tokens = TokensOf(options);
  if (options.streams < 1 || options.streams > 1'000'000 || options.stalled > options.streams || options.pace <= 0) {
    return absl::InvalidArgumentError(
        "expected --streams of 1 to 1000000, --stalled of at most --streams, and --pace above 0");
  }
  if (options.transport == Transport::kChat && !options.mock) {
    return absl::InvalidArgumentError("--transport=chat requires --mock: only its tokens can be checked");
  }
  for (const std::string& text : absl::GetFlag(FLAGS_pids)) {
    ProcessGroup group;
    if (!ParseProcessGroup(text, &group))
      return absl::InvalidArgumentError(absl::StrCat("--pids: invalid '", text, "'"));
    options.processes.push_back(std::move(group));
  }
  return options;
}

const char* NameOf(Transport transport) {
  for (const auto& [each, name] : kTransports) {
    if (each == transport) return name;
  }
  return "";
}

std::optional<MockPlan> MockPlanOf(const LoadOptions& options, int index) {
  if (!options.mock) return std::nullopt;
  MockPlan plan;
  plan.seed = static_cast<uint64_t>(index) + 1;
  plan.tokens = options.tokens;
  plan.pace = options.pace;
  plan.parts = options.parts;
  plan.phase = options.stepped ? 0 : static_cast<double>(index) / options.streams;
  // As the mock reads it, which has fewer digits.
  ReadPlan(PromptOf(plan), &plan);
  return plan;
}

std::string RequestBody(const LoadOptions& options, int index) {
  if (const auto plan = MockPlanOf(options, index); plan.has_value()) {
    json body = {{"messages", {{{"role", "user"}, {"content", PromptOf(*plan)}}}}, {"max_tokens", options.tokens}};
    if (options.transport == Transport::kChat) {
      body.update({{"model", "mock"}, {"stream", true}, {"stream_options", {{"include_usage", true}}}});
    } else {
      body["detach"] = {{"cancel_after_ms", 0}};
    }
    return body.dump();
  }
  if (!options.prompt.empty()) {
    return json{{"prompt", absl::StrCat(options.prompt, index)}, {"max_tokens", options.tokens}, {"temperature", 0}}
        .dump();
  }
  // A stream that is cut must not continue. With polling it may, because there is no reader between two polls.
  const int cancel_after_ms = options.transport == Transport::kPoll ? 10'000 : 0;
  return json{{"prompt", "go"},
              {"max_tokens", kMaxTokens},
              {"seed", index + 1},
              {"detach", {{"cancel_after_ms", cancel_after_ms}}},
              {"metadata", Metadata(options, index)}}
      .dump();
}

void FillRequest(const LoadOptions& options, int index, v1::GenerateRequest* request) {
  request->mutable_detach_timeout();
  if (const auto plan = MockPlanOf(options, index); plan.has_value()) {
    v1::ChatMessage* message = request->add_messages();
    message->set_role(v1::CHAT_ROLE_USER);
    message->set_content(PromptOf(*plan));
    request->set_max_tokens(options.tokens);
    return;
  }
  if (!options.prompt.empty()) {
    request->set_prompt(absl::StrCat(options.prompt, index));
    request->set_max_tokens(options.tokens);
    request->mutable_sampling()->set_temperature(0);
    return;
  }
  request->set_prompt("go");
  request->set_max_tokens(kMaxTokens);
  request->mutable_sampling()->set_seed(static_cast<uint64_t>(index) + 1);
  for (auto& [key, value] : Metadata(options, index)) (*request->mutable_metadata())[key] = value;
}

}  // namespace runnel::bench
