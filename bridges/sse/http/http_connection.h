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
  std::string principal;  // the owner of the API key, set after the key has been checked
};

// The outcome of reading a request.
struct ReadResult {
  enum class Kind { kRequest, kBad, kClosed };
  Kind kind = Kind::kClosed;
  HttpRequest request;      // for kBad: the part that was parsed
  bridge::HttpError error;  // for kBad: the response; the connection is closed after it
};

// An HTTP/1 connection between streams: reads requests and writes responses, each with a timeout. Lives in the frame of
// the coroutine that uses it and is confined to its io thread; one operation at a time.
class HttpConnection final : public bridge::Connection {
 public:
  // `read_ahead` was received before and belongs to the first request. The pointers must outlive it.
  HttpConnection(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket,
                 ReadAhead read_ahead);
  ~HttpConnection() override;

  // Reads to the end of the head of a request, so that the body of a rejected request is never read. kClosed also when
  // the connection was idle for too long, or when the process stops.
  bridge::Awaitable<ReadResult> ReadHead();
  // Completes the request of the last ReadHead with its body, if it has one. On an error `read` becomes kBad or
  // kClosed.
  bridge::Awaitable<void> ReadBody(ReadResult* read);
  // Instead of ReadBody: drops the part of the body that has been received. False if there is more, so that the
  // connection must not be used again.
  bool SkipBody();

  // False if `bytes` could not be written within the write timeout.
  bridge::Awaitable<bool> Write(std::string bytes);
  // Ends the connection so that the client receives the last response: closing a socket with unread bytes discards what
  // it has sent.
  bridge::Awaitable<void> Linger();

  // Calls `wake` once, from the io thread's event loop, when `timeout` has passed (infinite: never), the client has
  // disconnected or closed its side, or the process stops. StopWatching ends it.
  void Watch(absl::Duration timeout, std::function<void()> wake);
  void StopWatching();
  // The connection was reset or cut.
  bool client_gone() const { return client_gone_; }
  // The client sends no more bytes. It may have disconnected, or may wait for its response: see bridge::Peer.
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
  // Sets the outcome of reading.
  void Conclude(ReadResult* read);
  void LookAtClient();
  void SetDeadline(absl::Duration timeout);
  void Wake();

  bridge::IoThread* const thread_;
  const bridge::BridgeOptions* const options_;
  bridge::Socket socket_;
  ReadAhead read_ahead_;  // its reservation includes the bytes of the parser
  std::optional<base::HttpParser> parser_;
  absl::Duration deadline_ = absl::InfiniteDuration();
  std::function<void()> wake_;
  std::shared_ptr<DisconnectWatch> watch_;
  bool first_ = true;
  bool idle_ = false;
  bool over_budget_ = false;
  bool look_on_tick_ = false;  // each tick checks the client, because unread bytes or a FIN make a wait useless
  bool client_gone_ = false;
  bool half_closed_ = false;
  bool timed_out_ = false;
};

}  // namespace runnel::sse
