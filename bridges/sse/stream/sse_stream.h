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
#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/link/subscription.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/read_ahead.h"
#include "bridges/sse/stream/prompt_group.h"
#include "bridges/wire/stream_encoder.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

struct StreamSpec {
  // What to read: a new generation, or an existing one by its id.
  std::optional<v1::GenerateRequest> generate;
  std::vector<v1::GenerateRequest> more;  // generations beside it, read as further choices of it: see PromptGroup
  std::string generation_id;
  uint64_t after_seq = 0;
  bool read_before = false;  // by the client, though after_seq is 0
  v1::GapPolicy gap_policy = v1::GAP_POLICY_SIGNAL;
  std::string principal;  // on whose behalf; of a new generation it is in the request
  bool unmerged = false;
  // Null: the native events.
  std::unique_ptr<bridge::StreamEncoder> encoder;
  // The client cannot come back: the generation is cancelled when it goes, and a drain gives it all the time there is.
  bool cancel_on_disconnect = false;
  std::string traceparent;
  std::string tracestate;
  bool repeatable = true;  // nothing starts twice if the client asks again

  // Header lines that the answer has whatever it is (request id, CORS).
  std::string common_headers;
  bool chunked = true;     // HTTP/1.1
  bool keep_alive = true;  // as the client wants
  ReadAhead read_ahead;    // bytes of a next request
};

// One answer of text/event-stream, from the request's end to the socket's reuse or end. No coroutine, so that an open
// stream costs as little memory as it can: it is driven by its subscription, by the socket and by the tick.
//
// The header is written with the first event, so whatever the service refuses is an HTTP error. With everything that
// is pending it goes out in one write. Only a terminal event is followed by the final chunk: a stream that is broken,
// here or behind, ends without it, and the client sees a broken transfer.
//
// Owns itself until it is over. Confined to its io thread.
class SseStream final : public bridge::Connection,
                        public bridge::Subscription::Handler,
                        public std::enable_shared_from_this<SseStream> {
 public:
  // Takes over a connection whose answer has been written and which is to be kept.
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
  size_t PendingBytes() const override { return pending(); }
  void OnDrain() override;
  void OnCut() override;

 private:
  enum class Phase : uint8_t {
    kOpening,    // no byte of the answer is made
    kStreaming,  // the header is
    kEnding,     // all is, and the connection is to be reused or closed once it is written
    kClosed,
  };
  // What is only needed until the header is written.
  struct Opening;

  SseStream(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket, StreamSpec spec,
            OnReusable on_reusable, const void* context);

  void Begin();
  void Append(bridge::Subscription* subscription, v1::GenerationEvent& event);
  void Flush();
  void End(bridge::Subscription* subscription, const absl::Status& status);
  void WriteHeader();
  void Refuse(const absl::Status& status);
  void AnswerNothingLeft();
  // Everything made so far is the last; `complete` if the client may take it for the end.
  void EndWith(bool complete);

  // Gives an empty stream a buffer, until all of it is written.
  void BorrowBuffer();
  void OpenChunk();
  void CloseChunk();
  size_t pending() const { return out_.size() - sent_; }
  // Writes what is pending, as far as the socket takes it. False if the connection is broken.
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

  // What each event touches comes first and together, as in Subscription.
  Phase phase_ = Phase::kOpening;
  bool chunked_;
  bool keep_alive_;
  const bool cancel_on_disconnect_;
  bool chunk_open_ = false;
  bool waiting_writable_ = false;
  bool write_failed_ = false;
  bool look_on_tick_ = false;
  bool half_closed_ = false;
  bridge::Heartbeat heartbeat_;
  bridge::IoThread* const thread_;
  const bridge::BridgeOptions* const options_;
  const std::unique_ptr<bridge::StreamEncoder> encoder_;
  std::string out_;
  size_t sent_ = 0;
  size_t chunk_begin_ = 0;     // of the open chunk's size line in out_
  uint64_t replay_until_ = 0;  // events up to this were in the log before
  absl::Duration last_write_;  // the socket took bytes, or the stream began
  uint32_t events_ = 0;        // made since the last count
  uint32_t replayed_ = 0;      // of them
  uint32_t tokens_ = 0;        // in them
  bridge::Socket socket_;
  std::unique_ptr<PromptGroup> group_;  // null but for several prompts
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
  absl::Status refusal;       // whose reason is found here rather than in the service
  bool nothing_left = false;  // the log had ended at the cursor
};

}  // namespace runnel::sse
