#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/connection_set.h"
#include "bridges/base/heartbeat.h"
#include "bridges/base/log_position.h"
#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/link/subscription.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/read_ahead.h"
#include "bridges/sse/stream/chunked_body.h"
#include "bridges/sse/stream/prompt_group.h"
#include "bridges/wire/http_response.h"
#include "bridges/wire/stream_encoder.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// A stream to start.
struct StreamSpec {
  // A new generation, or the id of an existing one.
  std::optional<v1::GenerateRequest> generate;
  // Further generations, whose choices follow in the same stream: see PromptGroup.
  std::vector<v1::GenerateRequest> more;
  std::string generation_id;
  bridge::LogPosition after;
  bool read_before = false;  // the client has read events of it before, although `after` is 0
  v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL;
  std::string principal;  // the owner of an existing generation; `generate` has that of a new one
  bool unmerged = false;
  // Null: the native events.
  std::unique_ptr<bridge::StreamEncoder> encoder;
  // For a client that cannot resume: its generation is cancelled when it disconnects, and a drain does not end the
  // stream before its deadline.
  bool cancel_on_disconnect = false;
  std::string traceparent;
  std::string tracestate;
  bool repeatable = true;  // repeating the request does not start a second generation

  // Header lines that every response has (request id, CORS).
  std::string common_headers;
  bool chunked = true;     // HTTP/1.1
  bool keep_alive = true;  // the client wants it
  ReadAhead read_ahead;    // bytes of the next request
};

// One response of text/event-stream. It takes over the socket of a session after a request is read, and when the
// response has ended it gives the socket to a new session or closes it. Not a coroutine, so that an open stream takes
// as little memory as possible: its subscription, its socket and the tick call it.
//
// The header is written with the first event, in the same write, so that a rejection by the service is an HTTP error.
// With an encoder that delays the head, `started` waits for the next event, or for one heartbeat interval, so that a
// failure before the first delta is an HTTP error as well.
// Only a terminal event is followed by the last chunk: a stream that breaks, here or in the service, ends without it,
// and the client sees an incomplete transfer.
//
// Owns itself until it has ended. Confined to its io thread.
class SseStream final : public bridge::Connection,
                        public bridge::Subscription::Handler,
                        public std::enable_shared_from_this<SseStream> {
 public:
  // Takes over a connection that is kept alive after its response has been written.
  using OnReusable = void (*)(bridge::IoThread* thread, const void* context, bridge::Socket socket,
                              ReadAhead read_ahead);

  // The pointers must outlive the io threads' run.
  static void Start(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket,
                    StreamSpec spec, OnReusable on_reusable, const void* context);
  ~SseStream() override;

  void OnOpened(bridge::Subscription* subscription, const bridge::GenerationInfo& opened) override;
  void OnEvent(bridge::Subscription* subscription, v1::GenerationEvent& event) override;
  void OnFlush(bridge::Subscription* subscription) override;
  void OnProgress(bridge::Subscription* subscription, const v1::Progress& progress) override;
  void OnEnd(bridge::Subscription* subscription, const absl::Status& status) override;
  void OnTick(absl::Duration now) override;
  size_t PendingBytes() const override { return body_.pending(); }
  void OnDrain() override;
  void OnCut() override;

 private:
  enum class Phase : uint8_t {
    kOpening,    // nothing is in the buffer
    kStreaming,  // the header has been appended
    kEnding,     // the whole response has been; once it is written the connection is reused or closed
    kClosed,
  };
  // Only needed until the header is written.
  struct Opening;

  SseStream(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket, StreamSpec spec,
            OnReusable on_reusable, const void* context);

  void Begin();
  void Append(bridge::Subscription* subscription, v1::GenerationEvent& event);
  void Flush();
  void End(bridge::Subscription* subscription, const absl::Status& status);
  // Handles an event that comes before the header. True if it waits, or has become the response.
  bool HoldBack(const v1::GenerationEvent& event);
  // Writes the header and the `started` that waits.
  void BeginBody();
  void BeginWithHeartbeat();
  void WriteHeader();
  void Encode(bridge::Subscription* subscription, v1::GenerationEvent& event);
  // Whether the header waits only because the encoder delays it.
  bool MayBegin() const;
  void Reject(const absl::Status& status);
  void WriteError(const bridge::HttpError& error);
  void RespondNothingLeft();
  void WriteWhole(bridge::HttpResponse response);
  // Ends the response; `complete` if the client may take it for the whole stream.
  void EndWith(bool complete);

  // Writes pending bytes until the socket blocks. False if the connection is broken.
  [[nodiscard]] bool Send();
  void SendOrClose();
  void Drained();
  void WaitReadable();
  bool LookAtClient();
  void WaitWritable();
  void Reuse();
  void Close();
  void CancelIfAbandoned();
  void CountSent();
  void SendHeartbeat(const v1::Progress* progress);

  // Hot fields first, adjacent, so that one event touches few cache lines, as in Subscription.
  Phase phase_ = Phase::kOpening;
  bool keep_alive_;
  const bool cancel_on_disconnect_;
  bool waiting_writable_ = false;
  bool write_failed_ = false;
  bool look_on_tick_ = false;
  bool half_closed_ = false;
  bool lost_ = false;  // a gap could not be continued from, and the error was encoded
  bridge::Heartbeat heartbeat_;
  bridge::IoThread* const thread_;
  const bridge::BridgeOptions* const options_;
  const std::unique_ptr<bridge::StreamEncoder> encoder_;
  ChunkedBody body_;
  uint64_t replay_until_ = 0;  // events up to this were in the log before
  absl::Duration last_write_;  // when the socket took bytes, or the stream began
  uint32_t events_ = 0;        // encoded but not counted in the metrics yet
  uint32_t replayed_ = 0;      // of these, those that were in the log before
  uint32_t tokens_ = 0;        // in these
  bridge::Socket socket_;
  std::unique_ptr<PromptGroup> group_;  // null for a single prompt
  std::optional<bridge::Subscription> subscription_;

  const OnReusable on_reusable_;
  const void* const context_;
  std::unique_ptr<Opening> opening_;
  std::shared_ptr<SseStream> self_;
  absl::Duration leave_at_ = absl::InfiniteDuration();
};

struct SseStream::Opening {
  StreamSpec spec;
  bool opened = false;
  absl::Status rejection;                      // by this bridge, after the service has accepted
  bool nothing_left = false;                   // the log had ended at the cursor
  std::optional<v1::GenerationEvent> started;  // waits for the header
  std::optional<bridge::HttpError> failure;    // of the generation, before the header
};

}  // namespace runnel::sse
