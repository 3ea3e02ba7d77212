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
  std::string headers = {};                      // further ones, each with its CRLF
  std::shared_ptr<const std::string> body = {};  // shared: many scrapers get the same text
};

// The connections of an admin port, the one that did something least recently at the front. It owns them. Confined to
// the io thread.
using AdminConnections = std::list<std::shared_ptr<AdminConnection>>;

// One connection of the admin port: reads a request, has it answered, and again. Whatever its client does, it holds at
// most a header and one read of pipelined bytes, and ends by a deadline: for a request from the first byte to the last,
// for the answer to be taken, and for the silence between requests. Confined to the io thread; kept alive by the list
// and by its pending operations.
class AdminConnection : public std::enable_shared_from_this<AdminConnection> {
 public:
  using Executor = boost::asio::io_context::executor_type;
  using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, Executor>;
  // Calls Respond of the connection, now or later, once for each request.
  using OnRequest = std::function<void(const HttpHead& head, std::shared_ptr<AdminConnection> connection)>;

  // `limits`, `on_request` and `connections` must outlive it.
  AdminConnection(Socket socket, const AdminLimits* limits, const OnRequest* on_request, AdminConnections* connections);

  // Enters the list and begins to read.
  void Start();
  void Respond(AdminResponse response);
  // At once; leaves the list.
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
  void Refuse(const HttpParseError& error);
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
  bool started_ = false;     // bytes of the request have come
  bool head_only_ = false;   // the request is a HEAD
  bool keep_alive_ = false;  // after the response
  bool http_1_0_ = false;
  std::string unread_;  // bytes of the next request, which came with the last
  std::string head_;    // of the response that is written
  AdminResponse response_;
  size_t discarded_ = 0;
};

}  // namespace runnel::base
