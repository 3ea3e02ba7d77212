#include "services/inference/rpc/grpc_listener.h"

#include <fcntl.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "services/base/listen_socket.h"
#include "services/base/metrics.h"
#include "services/base/mutex.h"
#include "services/base/status_macros.h"
#include "services/base/unique_fd.h"

namespace runnel::inference {
namespace {

using GrpcAcceptor = grpc::experimental::ExternalConnectionAcceptor;

constexpr int kBacklog = 1024;
// Connections accepted in a row before hang-ups are handled.
constexpr int kAcceptsInARow = 64;
constexpr int kPauseAfterErrorMs = 100;
// gRPC's defaults, set here because a new release of gRPC may change them: 8 KiB of metadata per call, and two pings
// that are too early before the connection is closed.
constexpr int kMaxMetadataBytes = 8 << 10;
constexpr int kMaxPingStrikes = 2;
// Bridges ping silent connections at most once a second (--link_keepalive), to find dead ones. With gRPC's default of 5
// minutes these pings would close the connection.
constexpr int kMinPingIntervalMs = 900;

int Milliseconds(absl::Duration duration) { return static_cast<int>(absl::ToInt64Milliseconds(duration)); }

void SetArguments(const GrpcLimits& limits, grpc::ServerBuilder* builder) {
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, static_cast<int>(limits.max_streams));
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder->SetMaxReceiveMessageSize(static_cast<int>(limits.max_request_bytes));
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, kMaxPingStrikes);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kMinPingIntervalMs);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Milliseconds(limits.handshake_timeout));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, Milliseconds(limits.idle_timeout));
}

// Accepted sockets inherit these. Keep-alive finds peers that vanished without closing: their connections would count
// toward the limit forever.
void SetSocketOptions(int fd) {
  const auto set = [fd](int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
}

bool IsPeerError(int error) { return error == ECONNABORTED || error == EINTR || error == EPROTO; }

}  // namespace

// Accepts connections and notices when they end, on its thread.
class GrpcListener::Acceptor {
 public:
  Acceptor(base::ListenSocket socket, size_t max_connections, base::Metrics* metrics)
      : port_(socket.port),
        max_connections_(max_connections),
        open_(metrics->Gauge("runnel_grpc_connections", "Open connections of the gRPC port.")),
        rejected_(
            metrics->Counter("runnel_grpc_connections_refused_total",
                             "gRPC connections closed immediately, because --max_grpc_connections were open or no "
                             "descriptor was free.")),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        listening_(std::move(socket.fd)) {
    SetSocketOptions(listening_.get());
    Control(EPOLL_CTL_ADD, stop_.get(), EPOLLIN);
    Control(EPOLL_CTL_ADD, listening_.get(), EPOLLIN);
  }

  ~Acceptor() {
    StopAccepting();
    const uint64_t one = 1;
    if (thread_.joinable() && write(stop_.get(), &one, sizeof one) == sizeof one) thread_.join();
  }

  // `grpc_acceptor` belongs to a server that has started.
  void Start(std::unique_ptr<GrpcAcceptor> grpc_acceptor) {
    grpc_ = std::move(grpc_acceptor);
    thread_ = std::jthread([this] { Run(); });
  }

  void StopAccepting() EXCLUDES(mu_) {
    base::MutexLock lock(&mu_);
    listening_.reset();
  }

  int port() const { return port_; }
  size_t connections() const { return connections_; }

 private:
  // The result of one call of accept.
  enum class Accepted { kOne, kNoneWaiting, kOutOfDescriptors };

  void Run() EXCLUDES(mu_) {
    std::array<epoll_event, 64> events;
    bool paused = false;
    while (true) {
      const int count =
          epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), paused ? kPauseAfterErrorMs : -1);
      bool accept = std::exchange(paused, false);
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<size_t>(i)].data.fd;
        if (fd == stop_.get()) return;
        if (!Forget(fd)) accept = true;
      }
      if (accept) paused = !AcceptSome();
    }
  }

  // False if no connection can be accepted until a descriptor is free.
  bool AcceptSome() EXCLUDES(mu_) {
    for (int i = 0; i < kAcceptsInARow; ++i) {
      // Locked for each connection: StopAccepting waits until one that is being handed to gRPC has been.
      base::MutexLock lock(&mu_);
      if (!listening_) return true;
      const Accepted result = AcceptLocked();
      if (result == Accepted::kOutOfDescriptors) {
        Control(EPOLL_CTL_MOD, listening_.get(), 0);
        return false;
      }
      if (result == Accepted::kNoneWaiting) break;
    }
    base::MutexLock lock(&mu_);
    if (listening_) Control(EPOLL_CTL_MOD, listening_.get(), EPOLLIN);
    return true;
  }

  Accepted AcceptLocked() REQUIRES(mu_) {
    base::UniqueFd fd(accept4(listening_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return Accepted::kNoneWaiting;
      if (IsPeerError(errno)) return Accepted::kOne;
      // Usually no descriptor is free. The connection stays in the kernel's queue until one is.
      spdlog::warn("gRPC port: cannot accept a connection: {}", strerror(errno));
      return Accepted::kOutOfDescriptors;
    }
    if (watched_.size() >= max_connections_ || !Remember(fd.get())) {
      rejected_.Increment();
      return Accepted::kOne;
    }
    GrpcAcceptor::NewConnectionParameters parameters;
    parameters.listener_fd = listening_.get();
    parameters.fd = fd.release();
    grpc_->HandleNewConnection(&parameters);
    return Accepted::kOne;
  }

  // Watches a duplicate of `fd` for the hang-up, which epoll always reports. False if no descriptor is free.
  bool Remember(int fd) {
    base::UniqueFd duplicate(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!duplicate || Control(EPOLL_CTL_ADD, duplicate.get(), 0) != 0) return false;
    const int key = duplicate.get();
    watched_.emplace(key, std::move(duplicate));
    Count();
    return true;
  }

  // False if `fd` is not a duplicate.
  bool Forget(int fd) {
    const auto found = watched_.find(fd);
    if (found == watched_.end()) return false;
    // Closing it is not enough: epoll would watch it until gRPC has closed its descriptor too.
    Control(EPOLL_CTL_DEL, fd, 0);
    watched_.erase(found);
    Count();
    return true;
  }

  void Count() {
    connections_ = watched_.size();
    open_.Set(static_cast<double>(watched_.size()));
  }

  int Control(int operation, int fd, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    return epoll_ctl(epoll_.get(), operation, fd, &event);
  }

  const int port_;
  const size_t max_connections_;
  prometheus::Gauge& open_;
  prometheus::Counter& rejected_;
  const base::UniqueFd epoll_;
  const base::UniqueFd stop_;
  std::unique_ptr<GrpcAcceptor> grpc_;
  std::atomic<size_t> connections_ = 0;
  std::unordered_map<int, base::UniqueFd> watched_;  // confined to the thread

  base::Mutex mu_;
  base::UniqueFd listening_ GUARDED_BY(mu_);  // empty after StopAccepting

  std::jthread thread_;
};

absl::StatusOr<base::ListenSocket> GrpcListener::Listen(const Options& options) {
  return base::ListenOn(options.address, kBacklog);
}

absl::StatusOr<std::unique_ptr<GrpcListener>> GrpcListener::Create(const Options& options, grpc::Service* service,
                                                                   base::Metrics* metrics) {
  ASSIGN_OR_RETURN(base::ListenSocket socket, Listen(options));
  return Create(options, std::move(socket), service, metrics);
}

absl::StatusOr<std::unique_ptr<GrpcListener>> GrpcListener::Create(const Options& options, base::ListenSocket socket,
                                                                   grpc::Service* service, base::Metrics* metrics) {
  auto acceptor = std::make_unique<Acceptor>(std::move(socket), options.limits.max_connections, metrics);
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // Links the descriptor of the health service, so that reflection can describe it and not only list it.
    grpc::health::v1::HealthCheckRequest::descriptor();
  }
  grpc::ServerBuilder builder;
  SetArguments(options.limits, &builder);
  builder.RegisterService(service);
  auto grpc_acceptor = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, grpc::InsecureServerCredentials());
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return absl::UnavailableError("the gRPC server could not be started");
  acceptor->Start(std::move(grpc_acceptor));
  spdlog::info("gRPC on port {}", acceptor->port());
  return std::unique_ptr<GrpcListener>(new GrpcListener(std::move(acceptor), std::move(server)));
}

GrpcListener::GrpcListener(std::unique_ptr<Acceptor> acceptor, std::unique_ptr<grpc::Server> server)
    : acceptor_(std::move(acceptor)), server_(std::move(server)) {}

GrpcListener::~GrpcListener() {
  acceptor_->StopAccepting();
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

int GrpcListener::port() const { return acceptor_->port(); }
grpc::Server& GrpcListener::server() { return *server_; }
size_t GrpcListener::connections() const { return acceptor_->connections(); }
void GrpcListener::StopAccepting() { acceptor_->StopAccepting(); }

}  // namespace runnel::inference
