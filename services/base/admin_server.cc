#include "services/base/admin_server.h"

#include <httplib.h>

#include <thread>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/metrics.h"
#include "services/base/status_macros.h"

namespace runnel::base {
namespace {

void AddProbe(httplib::Server* server, const char* path, std::function<std::string()> fault) {
  server->Get(path, [fault = std::move(fault)](const httplib::Request&, httplib::Response& response) {
    const std::string why = fault ? fault() : "";
    response.status = why.empty() ? 200 : 503;
    response.set_content(why.empty() ? "ok\n" : why + "\n", "text/plain");
  });
}

}  // namespace

struct AdminServer::Impl {
  httplib::Server server;
  int port = 0;
  std::jthread thread;
};

AdminServer::AdminServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

AdminServer::~AdminServer() { impl_->server.stop(); }

int AdminServer::port() const { return impl_->port; }

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Create(const std::string& address, Metrics* metrics,
                                                                 Probes probes) {
  ASSIGN_OR_RETURN(const HostPort host_port, ParseHostPort(address));
  auto impl = std::make_unique<Impl>();
  httplib::Server& server = impl->server;
  server.new_task_queue = [] { return new httplib::ThreadPool(2); };
  // Without SO_REUSEPORT, which cpp-httplib sets by default: a second process must see that the port is taken.
  server.set_socket_options([](socket_t socket) {
    const int on = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  server.set_read_timeout(5);
  server.set_write_timeout(5);
  server.set_keep_alive_timeout(2);
  server.set_payload_max_length(1024);
  AddProbe(&server, "/livez", std::move(probes.not_live_reason));
  AddProbe(&server, "/readyz", std::move(probes.not_ready_reason));
  server.Get("/metrics", [metrics](const httplib::Request&, httplib::Response& response) {
    response.set_content(metrics->Expose(), "text/plain; version=0.0.4; charset=utf-8");
  });
  if (host_port.port == 0) {
    impl->port = server.bind_to_any_port(host_port.host.c_str());
  } else {
    impl->port = server.bind_to_port(host_port.host.c_str(), host_port.port) ? host_port.port : -1;
  }
  if (impl->port < 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on admin address ", address, " (is the port in use?)"));
  }
  impl->thread = std::jthread([&server] { server.listen_after_bind(); });
  // stop() before the listening has begun would be lost.
  while (!server.is_running()) std::this_thread::yield();
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(impl)));
}

}  // namespace runnel::base
