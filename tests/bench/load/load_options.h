#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runnel/v1/inference.pb.h"
#include "tests/bench/load/process_usage.h"

namespace runnel::bench {

enum class Transport {
  kSse,      // POST /v1/generations, answered by the stream
  kSseGet,   // GET of a channel that is fed already, as of a fan-out server
  kWs,       // subprotocol runnel.v1
  kWsProto,  // subprotocol runnel.v1.proto
  kWsGet,    // a channel that is fed already
  kPoll,     // POST, then GET ?after=N&wait=20 for each answer
  kGrpc,     // the service itself: one Generate a stream
};

struct LoadOptions {
  Transport transport = Transport::kSse;
  std::string host;
  int port = 0;
  std::string path;  // of kSseGet and kWsGet: the number of the stream is appended
  int streams = 1;
  std::string prompt;     // of an engine with a model: the number of the stream is appended; empty: scripted
  double open_rate = 0;   // connects a second whatever comes back; 0: 64 at once
  uint32_t tokens = 100;  // of each stream
  double pace = 30;       // tokens a second of each
  bool stepped = false;   // all streams emit in the same step
  bool idle = false;      // each says `started` and then nothing
  int stalled = 0;        // so many of the streams are not read while the window lasts
  double stalled_pace = 0;
  absl::Duration warmup;    // between the last opening and the window
  absl::Duration window;    // 0: all of the run
  absl::Duration coalesce;  // from one round of reading to the next, at least
  bool cut = false;         // at the window's end the streams are cut rather than read to their end
  absl::Duration timeout;   // of all of it
  std::vector<ProcessGroup> processes;
};

// From the flags of the process; see --help.
absl::StatusOr<LoadOptions> LoadOptionsFromFlags();

const char* NameOf(Transport transport);

// The body of the request of stream `index`: what the scripted engine is to say.
std::string RequestBody(const LoadOptions& options, int index);
// The same as a message.
void FillRequest(const LoadOptions& options, int index, v1::GenerateRequest* request);

}  // namespace runnel::bench
