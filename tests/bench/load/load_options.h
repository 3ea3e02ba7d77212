#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runnel/v1/inference.pb.h"
#include "tests/bench/load/process_usage.h"
#include "tests/bench/peers/upstream_mock/numbered_token.h"

namespace runnel::bench {

enum class Transport {
  kSse,      // POST /v1/generations; the response is the stream
  kChat,     // POST /v1/chat/completions with "stream": true; with the mock only
  kSseGet,   // GET of a channel of a fan-out server
  kWs,       // subprotocol runnel.v1
  kWsProto,  // subprotocol runnel.v1.proto
  kWsGet,    // a channel of a fan-out server
  kPoll,     // POST, then GET ?after=N&wait=20 after each response
  kGrpc,     // the service itself: one Generate call per stream
};

struct LoadOptions {
  Transport transport = Transport::kSse;
  std::string host;
  int port = 0;
  std::string path;  // path prefix of kSseGet and kWsGet; the number of the stream is appended
  int streams = 1;
  std::string prompt;     // for an engine with a model; the number of the stream is appended; empty: scripted engine
  bool mock = false;      // the tokens are those of the upstream mock, somewhere behind the server
  double open_rate = 0;   // connections to open per second, regardless of responses; 0: at most 64 at a time
  uint32_t tokens = 100;  // of each stream
  double pace = 30;       // tokens per second of each stream
  bool parts = false;     // with the mock: reasoning, text and tool calls in place of text
  bool stepped = false;   // all streams emit in the same step
  bool idle = false;      // streams send nothing after `started`
  int stalled = 0;        // number of streams that are not read until the window is over
  double stalled_pace = 0;
  absl::Duration warmup;    // from the opening of the last stream to the window
  absl::Duration window;    // 0: the whole run
  absl::Duration coalesce;  // shortest time between two rounds of reading
  bool cut = false;         // at the end of the window, cut the streams instead of reading them to their end
  absl::Duration timeout;   // of the whole run
  std::vector<ProcessGroup> processes;
};

// Reads the flags; see --help.
absl::StatusOr<LoadOptions> LoadOptionsFromFlags();

const char* NameOf(Transport transport);

// The plan of stream `index` for the upstream mock; none without --mock.
std::optional<MockPlan> MockPlanOf(const LoadOptions& options, int index);

// The body of the request of stream `index`, with its plan for the scripted engine.
std::string RequestBody(const LoadOptions& options, int index);
// The same request as a Protobuf message.
void FillRequest(const LoadOptions& options, int index, v1::GenerateRequest* request);

}  // namespace runnel::bench
