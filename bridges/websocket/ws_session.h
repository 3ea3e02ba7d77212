#pragma once

#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/byte_budget.h"
#include "bridges/base/connection_set.h"
#include "bridges/base/contain.h"
#include "bridges/base/net.h"
#include "bridges/server/io_threads.h"
#include "bridges/websocket/frame_tracker.h"
#include "bridges/websocket/ws_context.h"
#include "bridges/websocket/ws_protocol.h"

namespace runnel::websocket {

using UpgradeRequest = boost::beast::http::request<boost::beast::http::empty_body>;

class CoalescingSocket;
class WsStream;

// One connection of /v1/ws from the upgrade to its end. ws_session.cc has its reading, writing and closing,
// ws_session_messages.cc what it does for each client message, ws_session_time.cc its deadlines, pings and drain.
//
// The handlers that wait for its socket own it; it is destroyed with the last of them. Confined to its io thread.
// Messages are appended to the CoalescingSocket as whole frames and flushed once per batch of the Link. When more than
// max_pending_bytes wait for the socket, each stream that adds to them is paused until the socket has taken everything:
// a slow socket holds up its streams and no others.
class WsSession final : public bridge::Connection, public std::enable_shared_from_this<WsSession> {
 public:
  struct Parameters {
    Negotiated negotiated;
    bool authenticated = false;  // no `auth` message is needed
    std::string principal;       // from the key in the upgrade request
  };

  // `context` and `thread` must outlive the session.
  WsSession(bridge::Socket socket, const WsContext* context, bridge::IoThread* thread, const Parameters& parameters);
  ~WsSession() override;

  // Accepts the upgrade, which has been checked, and serves the connection. `read_ahead` are the bytes that arrived
  // after the request.
  void Start(const UpgradeRequest& request, std::string read_ahead);

  void OnTick(absl::Duration now) override;
  size_t PendingBytes() const override;
  void OnDrain() override;
  void OnCut() override;

  // For WsStream.
  Format format() const { return format_; }
  const WsContext& context() const { return context_; }
  bridge::IoThread* thread() const { return thread_; }
  const std::string& principal() const { return principal_; }
  void WriteEvent(WsStream* stream, std::string_view req, v1::GenerationEvent* event);
  void WriteMessage(const v1::WebSocketServerMessage& message);
  void WriteError(const std::string& req, const std::string& id, const absl::Status& status);
  // Called when `stream` knows its generation id: retires another stream of the same generation.
  void OnIdKnown(WsStream* stream);
  // Flushes now, or once after the current batch if there are several streams.
  void FlushSoon();
  void RemoveStream(WsStream* stream);
  // Runs `call`. An exception in it ends this connection and affects no other.
  template <class Call>
  void Guard(Call&& call) noexcept {
    if (ws_ == nullptr) return;  // ReleaseBeast has run.
    if (!bridge::Contain(context_.metrics, std::forward<Call>(call))) OnFault();
  }

 private:
  // Beast's stream over a CoalescingSocket. It takes many seconds to compile, so only ws_session.cc includes it.
  struct Beast;
  using error_code = boost::system::error_code;

  void OnAccepted(error_code ec);
  // Called with the next bytes of the client's frames before Beast sees them.
  void OnBytes(std::string_view bytes);
  // Sets the message size limit, which is smaller before the client has authenticated.
  void LimitMessages();
  void StartRead();
  // Makes room for `bytes` of a message. False if the budget of all unfinished messages is exhausted.
  bool ReserveMessage(size_t bytes);
  void ReleaseMessage();
  void OnFault() noexcept;
  void OnRead(error_code ec, size_t bytes);
  void OnReadEnd(error_code ec);
  void OnClientMessage(std::string_view bytes);
  void OnBadMessage(const std::string& req, const absl::Status& status);
  void OnAuth(const v1::WebSocketAuth& auth);
  void OnGenerate(v1::WebSocketGenerate generate);
  void OnResume(const v1::WebSocketResume& resume);
  void OnCancel(const std::string& id);
  void OnDetach(const std::string& id);

  // Whether one more stream may open, not counting `replaced`, which may be null. If not, sends an error for `req`.
  bool MayOpenStream(const std::string& req, const WsStream* replaced);
  WsStream* FindStream(std::string_view id);
  void ContinueStreams();

  void WriteHello();
  void WriteFrame(std::string_view bytes);
  void Flush();
  void OnProgress();
  void OnTime(absl::Duration now);
  void MaybePing(absl::Duration now);
  void Ping();
  void MaybeGoAway(absl::Duration now);
  // Sends pending bytes and a close frame with `code`, within the close timeout. Idempotent.
  void CloseWith(uint16_t code, std::string_view reason);
  void CountClose(uint16_t code);
  void CutNoLaterThan(absl::Duration deadline);
  // Ends a connection whose deadline has passed. Call at each tick from then on.
  void Cut();
  // Destroys Beast's stream, including handlers that wait for each other and would otherwise keep the session alive.
  void ReleaseBeast();
  bool open() const;

  // Hot fields first: see CoalescingSocket.
  const WsContext& context_;
  bridge::IoThread* const thread_;
  std::unique_ptr<Beast> ws_;  // null after ReleaseBeast
  CoalescingSocket& out_;      // owned by ws_
  const Format format_;
  bool accepted_ = false;
  bool closing_ = false;
  bool flush_posted_ = false;
  bool goaway_sent_ = false;
  bool faulted_ = false;
  uint8_t cut_ticks_ = 0;        // since the first Cut
  uint32_t written_events_ = 0;  // since the metrics were last updated, like the next two
  uint32_t written_tokens_ = 0;
  size_t written_bytes_ = 0;
  std::vector<std::unique_ptr<WsStream>> streams_;

  const Parameters parameters_;
  std::string principal_;
  bool authenticated_;
  uint8_t bad_messages_ = 0;      // in a row
  uint8_t refused_streams_ = 0;   // in a row, because the connection had too many
  uint8_t unanswered_pings_ = 0;  // in a row
  uint32_t cancels_ = 0;          // in progress

  // Times are on base::Clock::System().Monotonic().
  const absl::Duration opened_;
  absl::Duration last_message_;
  absl::Duration unfinished_since_;  // start of the frame or message that frames_ reports as unfinished
  absl::Duration last_ping_;
  absl::Duration last_progress_;  // when the socket last took bytes, or had none to take
  absl::Duration go_away_at_ = absl::InfiniteDuration();
  absl::Duration close_at_ = absl::InfiniteDuration();  // with 1001
  absl::Duration cut_at_;                               // deadline of the upgrade, later of the closing handshake

  FrameTracker frames_;                         // follows the client's frames
  std::string message_;                         // the first message_bytes_ bytes have been read
  bridge::ByteBudget::Reservation unfinished_;  // for message_ if it is larger than a short message
  size_t message_bytes_ = 0;
  size_t first_to_continue_ = 0;
};

}  // namespace runnel::websocket
