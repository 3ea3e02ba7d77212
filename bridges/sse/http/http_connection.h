#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/time/time.h"
#include "bridges/base/connection_set.h"
#include "bridges/base/net.h"
#include "bridges/base/options.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/read_ahead.h"
#include "bridges/wire/http_error.h"
#include "services/base/http_parser.h"

namespace runnel::sse {

struct HttpRequest : base::HttpHead {
  std::string body;
  std::string principal;  // who asks, once that has been checked
};

// What came of waiting for a request.
struct ReadResult {
  enum class Kind { kRequest, kBad, kClosed };
  Kind kind = Kind::kClosed;
  HttpRequest request;      // of kBad: as far as it was understood
  bridge::HttpError error;  // of kBad: to be answered, and the connection closed
};

// An HTTP/1 connection between streams: reads requests and writes answers, each within its time. Lives in the frame of
// the coroutine that uses it and is confined to its io thread; one operation at a time.
class HttpConnection final : public bridge::Connection {
 public:
  // `read_ahead` came before and belongs to the first request. The pointers must outlive it.
  HttpConnection(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket,
                 ReadAhead read_ahead);
  ~HttpConnection() override;

  // Reads as far as the end of a request's head, so that a request which is not allowed to have a body read never has.
  // kClosed also when the connection stayed idle for too long, or when the process stops.
  bridge::Awaitable<ReadResult> ReadHead();
  // Completes the request of the last ReadHead with its body, if it has one. `read` becomes kBad or kClosed otherwise.
  bridge::Awaitable<void> ReadBody(ReadResult* read);
  // Instead of ReadBody: drops the body as far as it has come. False if there is more of it, so that the connection
  // must not be used again.
  bool SkipBody();

  // False if it could not be written within the write timeout.
  bridge::Awaitable<bool> Write(std::string bytes);
  // Ends the connection so that the client gets what was written last: a socket that is closed with bytes unread takes
  // back what it sent.
  bridge::Awaitable<void> Linger();

  // Calls `wake`, once and at a later turn, when `timeout` has passed (infinite: never), the client has gone or closed
  // its side, or the process stops. StopWatching ends it.
  void Watch(absl::Duration timeout, std::function<void()> wake);
  void StopWatching();
  // The connection was reset or cut.
  bool client_gone() const { return client_gone_; }
  // The client sends no more bytes. It may have gone, or wait for its answer: see bridge::Peer.
  bool half_closed() const { return half_closed_; }
  bool timed_out() const { return timed_out_; }

  // Nothing else may be called afterwards.
  bridge::Socket TakeSocket() { return std::move(socket_); }
  ReadAhead TakeReadAhead() { return std::move(read_ahead_); }

  void OnTick(absl::Duration now) override;
  void OnDrain() override;
  void OnCut() override;

 private:
  struct DisconnectWatch;

  bridge::Awaitable<bool> FeedSome();
  bridge::Awaitable<std::string_view> ReadSome();
  bool Reserve();
  // Sets what came of reading, as `read`.
  void Conclude(ReadResult* read);
  void LookAtClient();
  void SetDeadline(absl::Duration timeout);
  void Wake();

  bridge::IoThread* const thread_;
  const bridge::BridgeOptions* const options_;
  bridge::Socket socket_;
  ReadAhead read_ahead_;  // the reservation is for the parser's bytes too
  std::optional<base::HttpParser> parser_;
  absl::Duration deadline_ = absl::InfiniteDuration();
  std::function<void()> wake_;
  std::shared_ptr<DisconnectWatch> watch_;
  bool first_ = true;
  bool idle_ = false;
  bool over_budget_ = false;
  bool look_on_tick_ = false;  // at the client, because its bytes or its FIN hide what follows from a wait
  bool client_gone_ = false;
  bool half_closed_ = false;
  bool timed_out_ = false;
};

}  // namespace runnel::sse
