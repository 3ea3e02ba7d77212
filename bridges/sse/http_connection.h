#pragma once

#include <boost/beast/core/flat_buffer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "bridges/common/http_policy.h"
#include "bridges/common/io_threads.h"
#include "bridges/common/net.h"
#include "bridges/common/options.h"
#include "bridges/common/task_group.h"

namespace runnel::sse {

struct HttpRequest {
  std::string method;
  std::string target;
  bool http_1_0 = false;
  bool keep_alive = true;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
  std::string principal;  // who asks, once that has been checked

  // The first of that name, or empty.
  std::string_view Header(std::string_view lower_case_name) const;
};

// What came of waiting for a request.
struct ReadResult {
  enum class Kind { kRequest, kBad, kClosed };
  Kind kind = Kind::kClosed;
  HttpRequest request;
  bridge::HttpError error;  // of kBad: to be answered, and the connection closed
};

// An HTTP/1 connection between streams: reads requests and writes answers, each within its time. Lives in the frame of
// the coroutine that uses it and is confined to its io thread; one operation at a time.
class HttpConnection final : public bridge::Task {
 public:
  // `read_ahead` came before and belongs to the first request. The pointers must outlive it.
  HttpConnection(bridge::IoThread* thread, const bridge::BridgeOptions* options, bridge::Socket socket,
                 std::string read_ahead);
  ~HttpConnection() override;

  // kClosed also when it stayed idle for too long, or when the process stops.
  bridge::Awaitable<ReadResult> ReadRequest();
  // False if it could not be written within the write timeout.
  bridge::Awaitable<bool> Write(std::string bytes);
  // Ends the connection so that the client gets what was written last: a socket that is closed with bytes unread takes
  // back what it sent.
  bridge::Awaitable<void> Linger();

  // Calls `wake`, once and at a later turn, when `timeout` has passed (infinite: never), the client has gone, or the
  // process stops. StopWatching ends it.
  void Watch(absl::Duration timeout, std::function<void()> wake);
  void StopWatching();
  bool client_gone() const { return client_gone_; }
  bool timed_out() const { return timed_out_; }

  // Nothing else may be called afterwards.
  bridge::Socket TakeSocket() { return std::move(socket_); }
  std::string TakeReadAhead();

  void OnTick(absl::Duration now) override;
  void OnDrain() override;
  void OnCut() override;

 private:
  struct DisconnectWatch;

  bridge::Awaitable<bool> WaitForBytes();
  void SetDeadline(absl::Duration timeout);
  void Wake();

  bridge::IoThread* const thread_;
  const bridge::BridgeOptions* const options_;
  bridge::Socket socket_;
  boost::beast::flat_buffer buffer_;
  absl::Duration deadline_ = absl::InfiniteDuration();
  std::function<void()> wake_;
  std::shared_ptr<DisconnectWatch> watch_;
  bool first_ = true;
  bool idle_ = false;
  bool client_gone_ = false;
  bool timed_out_ = false;
};

}  // namespace runnel::sse
