#include "bridges/server/listener.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bridges/base/bridge_metrics.h"
#include "bridges/base/contain.h"
#include "bridges/server/io_threads.h"
#include "bridges/wire/http_response.h"
#include "services/base/host_port.h"
#include "services/base/status_macros.h"

namespace runnel::bridge {
namespace {

using Tcp = net::ip::tcp;
using ReusePort = net::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;

constexpr int kBacklog = 4096;
constexpr std::chrono::milliseconds kPauseAfterError(100);

absl::StatusOr<Tcp::endpoint> Resolve(const std::string& address) {
  ASSIGN_OR_RETURN(const base::HostPort parsed, base::ParseHostPort(address));
  const std::string host = parsed.host.empty() ? "0.0.0.0" : parsed.host == "localhost" ? "127.0.0.1" : parsed.host;
  ErrorCode ec;
  const auto ip = net::ip::make_address(host, ec);
  if (ec) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen=", address, ": '", parsed.host, "' is not an IP address or localhost"));
  }
  return Tcp::endpoint(ip, static_cast<uint16_t>(parsed.port));
}

absl::Status CannotListen(const std::string& address, const ErrorCode& ec) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", ec.message()));
}

// SO_REUSEPORT lets a second process of the same user silently share a port, so the port is first bound without it.
absl::StatusOr<Tcp::endpoint> FindFree(const std::string& address, const Tcp::endpoint& endpoint) {
  net::io_context io;
  Tcp::acceptor probe(io);
  ErrorCode ec;
  probe.open(endpoint.protocol(), ec);
  if (!ec) probe.set_option(net::socket_base::reuse_address(true), ec);
  if (!ec) probe.bind(endpoint, ec);
  if (!ec) probe.listen(1, ec);
  if (ec) return CannotListen(address, ec);
  return probe.local_endpoint();
}

const std::string& TooManyConnections() {
  static const std::string bytes = [] {
    HttpResponse response = ErrorResponse(HttpErrorOf(absl::UnavailableError("too many connections are open")));
    response.keep_alive = false;
    return Serialize(response);
  }();
  return bytes;
}

}  // namespace

struct Listener::Acceptor : std::enable_shared_from_this<Acceptor> {
  Acceptor(IoThread* io_thread, IoThreads* io_threads, const Options& listener_options, OnAccept callback)
      : thread(io_thread),
        threads(io_threads),
        options(listener_options),
        on_accept(std::move(callback)),
        acceptor(io_thread->io.get_executor()),
        timer(io_thread->io) {}

  absl::Status Listen(const std::string& address, const Tcp::endpoint& endpoint) {
    ErrorCode ec;
    acceptor.open(endpoint.protocol(), ec);
    if (!ec) acceptor.set_option(net::socket_base::reuse_address(true), ec);
    if (!ec) acceptor.set_option(ReusePort(true), ec);
    if (!ec) acceptor.bind(endpoint, ec);
    if (!ec) acceptor.listen(kBacklog, ec);
    if (ec) return CannotListen(address, ec);
    return absl::OkStatus();
  }

  void Accept() {
    acceptor.async_accept([self = shared_from_this()](ErrorCode ec, Socket socket) {
      if (ec == net::error::operation_aborted || !self->acceptor.is_open()) return;
      if (!ec) {
        (void)Contain(self->thread->metrics, [&] { self->Admit(std::move(socket)); });
        return self->Accept();
      }
      // Usually there is no free descriptor. The connection stays in the kernel's queue until there is one.
      spdlog::warn("cannot accept a connection: {}", ec.message());
      self->timer.expires_after(kPauseAfterError);
      self->timer.async_wait([self](ErrorCode timer_ec) {
        if (!timer_ec) self->Accept();
      });
    });
  }

  void Admit(Socket socket) {
    ErrorCode ec;
    socket.non_blocking(true, ec);
    if (!ec) socket.set_option(Tcp::no_delay(true), ec);
    if (ec) return;  // the client has disconnected
    thread->metrics->connections_accepted.Increment();
    if (threads->connections() < options.max_connections) return on_accept(thread, std::move(socket));
    thread->metrics->connections_refused.Increment();
    socket.write_some(net::buffer(TooManyConnections()), ec);
    socket.shutdown(Tcp::socket::shutdown_send, ec);
  }

  void Close() {
    ErrorCode ec;
    acceptor.close(ec);
    timer.cancel();
  }

  IoThread* const thread;
  IoThreads* const threads;
  const Options options;
  const OnAccept on_accept;
  net::basic_socket_acceptor<Tcp, Executor> acceptor;
  net::steady_timer timer;
};

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(const Options& options, IoThreads* threads,
                                                           OnAccept on_accept) {
  ASSIGN_OR_RETURN(const Tcp::endpoint wanted, Resolve(options.address));
  ASSIGN_OR_RETURN(const Tcp::endpoint endpoint, FindFree(options.address, wanted));
  std::unique_ptr<Listener> listener(new Listener(options, threads, std::move(on_accept)));
  RETURN_IF_ERROR(listener->Listen(endpoint));
  return listener;
}

Listener::Listener(const Options& options, IoThreads* threads, OnAccept on_accept)
    : options_(options), threads_(threads), on_accept_(std::move(on_accept)) {}

Listener::~Listener() { Stop(); }

absl::Status Listener::Listen(const Tcp::endpoint& endpoint) {
  port_ = endpoint.port();
  for (size_t i = 0; i < threads_->size(); ++i) {
    auto acceptor = std::make_shared<Acceptor>(&(*threads_)[i], threads_, options_, on_accept_);
    RETURN_IF_ERROR(acceptor->Listen(options_.address, endpoint));
    acceptors_.push_back(acceptor);
  }
  for (auto& acceptor : acceptors_) net::post(acceptor->thread->io, [acceptor] { acceptor->Accept(); });
  return absl::OkStatus();
}

void Listener::Stop() {
  for (auto& acceptor : acceptors_) net::post(acceptor->thread->io, [acceptor] { acceptor->Close(); });
  acceptors_.clear();
}

}  // namespace runnel::bridge
