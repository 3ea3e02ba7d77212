// The floor: the lowest possible cost of sending each token to each reader as an SSE event. The tokens are generated
// here, one thread holds all sockets in one epoll, and each event is one send(): no gRPC, no framework, no resume, no
// limits, no metrics. Not for production.
//
//   bench-floor PORT

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/peers/epoll_server.h"
#include "tests/bench/peers/token_source.h"

namespace runnel::bench {
namespace {

// Like the scripted engine: events due within a tick are sent together.
constexpr int64_t kTickUs = 1000;
// Events of one stream per turn, so that a fast stream does not hold up the others, like in the scripted engine.
constexpr int kMaxEventsPerTurn = 256;
constexpr char kHead[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache, no-transform\r\n"
    "transfer-encoding: chunked\r\n\r\n";

struct Connection {
  int fd = -1;
  std::string in;
  std::string out;  // bytes that the socket has not taken
  std::optional<TokenSource> source;
};

class Floor {
 public:
  explicit Floor(int port)
      : epoll_(epoll_create1(0)),
        listener_(ListenOnLoopback(port, "bench-floor")),
        timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)) {
    Watch(listener_, EPOLLIN, &listener_);
    Watch(timer_, EPOLLIN, &timer_);
  }

  void Run() {
    std::array<epoll_event, 256> events;
    for (;;) {
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) OnReady(events[static_cast<size_t>(i)]);
      SendDue();
    }
  }

 private:
  using Due = std::pair<int64_t, Connection*>;

  void Watch(int fd, uint32_t what, void* tag) { WatchWithEpoll(epoll_, fd, what, tag); }

  void OnReady(const epoll_event& event) {
    if (event.data.ptr == &listener_) return Accept();
    if (event.data.ptr == &timer_) {
      uint64_t expired = 0;
      [[maybe_unused]] const ssize_t n = read(timer_, &expired, sizeof expired);
      armed_ = false;
      return;
    }
    auto* connection = static_cast<Connection*>(event.data.ptr);
    if ((event.events & EPOLLOUT) != 0 && !connection->out.empty()) Send(connection, "");
    if ((event.events & EPOLLIN) != 0) Receive(connection);
  }

  void Accept() {
    for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      auto* connection = new Connection;
      connection->fd = fd;
      Watch(fd, EPOLLIN | EPOLLOUT | EPOLLET, connection);
    }
  }

  void Receive(Connection* connection) {
    std::array<char, 4096> buffer;
    for (ssize_t n; connection->fd >= 0 && (n = recv(connection->fd, buffer.data(), buffer.size(), 0)) != -1;) {
      if (n == 0) return Close(connection);
      connection->in.append(buffer.data(), static_cast<size_t>(n));
    }
    if (connection->source.has_value() || connection->in.find("\r\n\r\n") == std::string::npos ||
        connection->in.back() != '}') {
      return;
    }
    char id[32];
    std::snprintf(id, sizeof id, "gen_%026d", ++ids_);
    connection->source.emplace(id, PlanOf(connection->in));
    std::string().swap(connection->in);
    Send(connection, kHead);
    due_.emplace(connection->source->due_us(), connection);
  }

  // A scheduled connection is deleted by SendDue, which will still visit it.
  void Close(Connection* connection) {
    const bool scheduled = connection->source.has_value() && !connection->source->ended();
    if (connection->fd >= 0) close(std::exchange(connection->fd, -1));
    if (!scheduled) delete connection;
  }

  void SendDue() {
    const int64_t now = NowMicros();
    for (; !due_.empty() && due_.top().first <= now; due_.pop()) turn_.push_back(due_.top().second);
    for (Connection* connection : turn_) {
      if (connection->fd < 0) {
        delete connection;
        continue;
      }
      TokenSource& source = *connection->source;
      // Generates no events while the socket takes nothing.
      for (int i = 0; i < kMaxEventsPerTurn && connection->out.empty() && source.due_us() <= now; ++i) {
        SendEvent(connection);
      }
      if (!source.ended()) due_.emplace(connection->out.empty() ? source.due_us() : now + kTickUs, connection);
    }
    turn_.clear();
    if (due_.empty() || armed_) return;
    // Immediately if there was more to send than one turn allows.
    const int64_t wait = due_.top().first <= now ? 1 : std::max(due_.top().first - now, kTickUs);
    itimerspec spec{};
    spec.it_value.tv_sec = std::min<int64_t>(wait / 1'000'000, 3600);
    spec.it_value.tv_nsec = wait % 1'000'000 * 1000;
    timerfd_settime(timer_, 0, &spec, nullptr);
    armed_ = true;
  }

  void SendEvent(Connection* connection) {
    TokenSource& source = *connection->source;
    event_.assign("id: ");
    event_.append(source.id()).push_back(':');
    event_.append(std::to_string(source.seq() + 1));
    event_.append(source.seq() == 0 ? "\nevent: started\ndata: " : "\nevent: delta\ndata: ");
    source.AppendNext(NowMicros(), &event_);
    event_.append("\n\n");
    char size[16];
    chunk_.assign(size, static_cast<size_t>(std::snprintf(size, sizeof size, "%08zx\r\n", event_.size())));
    chunk_.append(event_).append(source.ended() ? "\r\n0\r\n\r\n" : "\r\n");
    Send(connection, chunk_);
  }

  void Send(Connection* connection, const std::string& bytes) {
    const std::string* all = &bytes;
    if (!connection->out.empty()) all = &connection->out.append(bytes);
    size_t sent = 0;
    while (sent < all->size()) {
      const ssize_t n = send(connection->fd, all->data() + sent, all->size() - sent, MSG_NOSIGNAL);
      if (n < 0) break;
      sent += static_cast<size_t>(n);
    }
    if (all == &connection->out) {
      connection->out.erase(0, sent);
    } else if (sent < bytes.size()) {
      connection->out = bytes.substr(sent);
    }
  }

  const int epoll_;
  int listener_;
  int timer_;
  bool armed_ = false;
  int ids_ = 0;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::vector<Connection*> turn_;  // connections that were due at the start of the turn
  std::string event_;
  std::string chunk_;
};

}  // namespace
}  // namespace runnel::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: bench-floor PORT\n");
    return 2;
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  runnel::bench::Floor(std::atoi(argv[1])).Run();
}
