#include "services/base/admin_server.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/admin_connection.h"
#include "services/base/exposition.h"
#include "services/base/host_name.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/base/status_macros.h"

namespace runnel::base {
namespace {

namespace net = boost::asio;
using Tcp = net::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr int kBacklog = 1024;
constexpr std::chrono::milliseconds kPauseAfterError(100);
constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";

std::shared_ptr<const std::string> Line(absl::string_view text) {
  return std::make_shared<const std::string>(absl::StrCat(text, "\n"));
}

}  // namespace

// Everything but the constructor, Start, SetProbes and the destructor runs on the io thread.
class AdminServer::Impl {
 public:
  Impl(Metrics* metrics, Probes probes, const AdminLimits& limits)
      : limits_(limits),
        probes_(std::move(probes)),
        open_(metrics->Gauge("runnel_admin_connections", "Open connections of the admin port.")),
        evicted_(metrics->Counter("runnel_admin_connections_evicted_total",
                                  "Connections of the admin port closed to make room for a new one.")),
        errors_(metrics->Counter("runnel_admin_errors_total", "Errors of the admin port that ended a connection.")),
        io_(1),
        acceptor_(io_.get_executor()),
        pause_(io_),
        exposition_(metrics) {}

  void SetProbes(Probes probes) EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    probes_ = std::move(probes);
  }

  ~Impl() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
    // The list and the pending operations of the loop keep the connections alive.
    while (!connections_.empty()) connections_.front()->Close();
  }

  absl::Status Start(const std::string& address) {
    ASSIGN_OR_RETURN(ListenSocket socket, ListenOn(address, kBacklog));
    port_ = socket.port;
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    getsockname(socket.fd.get(), reinterpret_cast<sockaddr*>(&bound), &size);
    ErrorCode ec;
    acceptor_.assign(bound.ss_family == AF_INET6 ? Tcp::v6() : Tcp::v4(), socket.fd.get(), ec);
    if (ec) return absl::InternalError(absl::StrCat("admin port: ", ec.message()));
    (void)socket.fd.release();
    on_loopback_ = acceptor_.local_endpoint(ec).address().is_loopback();
    Accept();
    thread_ = std::jthread([this] { Run(); });
    return absl::OkStatus();
  }

  int port() const { return port_; }

 private:
  // An exception of one connection ends only that connection: its deadline closes it.
  void Run() {
    while (!io_.stopped()) {
      try {
        io_.run();
      } catch (const std::exception& error) {
        errors_.Increment();
        spdlog::error("admin port: {}", error.what());
      }
    }
  }

  void Accept() {
    acceptor_.async_accept([this](ErrorCode ec, AdminConnection::Socket socket) {
      if (ec == net::error::operation_aborted) return;
      if (ec) return PauseAccepting(ec);
      // First, so that an exception of this connection cannot end the accepting.
      Accept();
      Admit(std::move(socket));
    });
  }

  // Usually no descriptor is free: closing one of our connections may make room for a probe.
  void PauseAccepting(ErrorCode reason) {
    spdlog::warn("admin port: cannot accept a connection: {}", reason.message());
    if (!connections_.empty()) Evict();
    pause_.expires_after(kPauseAfterError);
    pause_.async_wait([this](ErrorCode ec) {
      if (!ec) Accept();
    });
  }

  void Admit(AdminConnection::Socket socket) {
    ErrorCode ec;
    socket.non_blocking(true, ec);
    if (!ec) socket.set_option(Tcp::no_delay(true), ec);
    if (ec) return;  // the client has disconnected already
    if (connections_.size() >= limits_.max_connections) Evict();
    std::make_shared<AdminConnection>(std::move(socket), &limits_, &on_request_, &connections_)->Start();
  }

  void Evict() {
    evicted_.Increment();
    connections_.front()->Close();
  }

  void Handle(const HttpHead& head, std::shared_ptr<AdminConnection> connection) {
    open_.Set(static_cast<double>(connections_.size()));
    const std::string path = head.target.substr(0, head.target.find_first_of("?#"));
    if (!HostIsServed(head.Header("host"))) {
      return connection->Respond({.status = 403, .body = Line("the Host must be an address or localhost")});
    }
    const bool probe = path == "/livez" || path == "/readyz";
    if (!probe && path != "/metrics")
      return connection->Respond({.status = 404, .body = Line("no such path: use /livez, /readyz or /metrics")});
    if (head.method != "GET" && head.method != "HEAD") {
      return connection->Respond({.status = 405,
                                  .headers = "allow: GET, HEAD\r\n",
                                  .body = Line("the method is not allowed: use GET or HEAD")});
    }
    if (!probe) return RespondWithMetrics(std::move(connection));
    const std::string why = ReasonOf(path == "/livez" ? &Probes::not_live_reason : &Probes::not_ready_reason);
    connection->Respond({.status = why.empty() ? 200 : 503, .body = Line(why.empty() ? "ok" : why)});
  }

  std::string ReasonOf(std::function<std::string()> Probes::*probe) EXCLUDES(mu_) {
    MutexLock lock(&mu_);
    return probes_.*probe ? (probes_.*probe)() : "";
  }

  void RespondWithMetrics(std::shared_ptr<AdminConnection> connection) {
    exposition_.Make([this, connection = std::move(connection)](const Exposition::Text& text) mutable {
      net::post(io_, [connection = std::move(connection), text] {
        connection->Respond({.content_type = kMetricsType, .body = text});
      });
    });
  }

  // An HTTP/1.0 request may have none, and no browser sends one.
  bool HostIsServed(std::string_view host) const {
    return !on_loopback_ || host.empty() || IsLocalHostName(HostOf(host));
  }

  const AdminLimits limits_;
  Mutex mu_;  // held while a probe is called
  Probes probes_ GUARDED_BY(mu_);
  prometheus::Gauge& open_;
  prometheus::Counter& evicted_;
  prometheus::Counter& errors_;
  const AdminConnection::OnRequest on_request_ = [this](const HttpHead& head, std::shared_ptr<AdminConnection> from) {
    Handle(head, std::move(from));
  };
  int port_ = 0;
  bool on_loopback_ = false;

  net::io_context io_;
  AdminConnections connections_;
  net::basic_socket_acceptor<Tcp, AdminConnection::Executor> acceptor_;
  net::steady_timer pause_;
  Exposition exposition_;
  std::jthread thread_;
};

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AdminServer::~AdminServer() = default;

void AdminServer::SetProbes(Probes probes) { impl_->SetProbes(std::move(probes)); }

int AdminServer::port() const { return impl_->port(); }

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Create(const std::string& address, Metrics* metrics,
                                                                 Probes probes, AdminLimits limits) {
  auto impl = std::make_unique<Impl>(metrics, std::move(probes), limits);
  RETURN_IF_ERROR(impl->Start(address));
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

}  // namespace runnel::base
