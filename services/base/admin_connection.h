#pragma once

#include <array>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/http_parser.h"

namespace runnel::base {

struct AdminLimits;
class AdminConnection;

struct AdminResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string headers = {};                      // additional ones, each with its CRLF
  std::shared_ptr<const std::string> body = {};  // shared: many scrapers get the same text
};

// The connections of an admin port, the least recently active one at the front. Owns them. Confined to the io thread.
using AdminConnections = std::list<std::shared_ptr<AdminConnection>>;

// One connection of the admin port: reads requests and writes the responses, one at a time. Whatever its client does,
// it holds at most a header and one read of pipelined bytes, and it has deadlines: for a request from the first byte to
// the last, for the client to read the response, and for the silence between requests. Confined to the io thread; kept
// alive by the list and by its pending operations.
class AdminConnection : public std::enable_shared_from_this<AdminConnection> {
 public:
  using Executor = boost::asio::io_context::executor_type;
  using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, Executor>;
  // Has to call Respond of the connection, now or later, once for each request.
  using OnRequest = std::function<void(const HttpHead& head, std::shared_ptr<AdminConnection> connection)>;

  // `limits`, `on_request` and `connections` must outlive the connection.
  AdminConnection(Socket socket, const AdminLimits* limits, const OnRequest* on_request, AdminConnections* connections);

  // Adds itself to the list and starts to read.
  void Start();
  void Respond(AdminResponse response);
  // Closes immediately and leaves the list.
  void Close();

 private:
  using Timer = boost::asio::basic_waitable_timer<std::chrono::steady_clock,
                                                  boost::asio::wait_traits<std::chrono::steady_clock>, Executor>;

  void SetDeadline(std::chrono::nanoseconds from_now);
  void Touch();
  void BeginRequest();
  void Read();
  void OnReadable();
  void Take(std::string_view bytes);
  void Reject(const HttpParseError& error);
  void OnWritten();
  void Linger();
  void Discard();

  Socket socket_;
  Timer timer_;
  const AdminLimits* const limits_;
  const OnRequest* const on_request_;
  AdminConnections* const connections_;
  std::optional<AdminConnections::iterator> place_;

  std::optional<HttpParser> parser_;
  bool started_ = false;     // bytes of the request have arrived
  bool head_only_ = false;   // the request is a HEAD
  bool keep_alive_ = false;  // after the response
  bool http_1_0_ = false;
  std::string unread_;  // bytes of the next request that arrived with the last
  std::string head_;    // of the response being written
  AdminResponse response_;
  size_t discarded_ = 0;
};

}  // namespace runnel::base
