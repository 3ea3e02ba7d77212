// A mock of an OpenAI-compatible inference server for benchmarks of what stands before one: one thread, one epoll, one
// send() per token. Not for production.
//
//   bench-upstream-mock PORT [--tick_us=100] [--unchunked]
//
//   --tick_us    tokens due within so many microseconds are sent together [us]
//   --unchunked  responses end with the connection instead of a last chunk
//
// Routes: POST /v1/chat/completions and /v1/completions with "stream": true, whose prompt is a plan (numbered_token.h);
// GET /v1/models, /health and /stats. The latter has the connections and requests so far as JSON.

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
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/peers/epoll_server.h"
#include "tests/bench/peers/upstream_mock/mock_request.h"
#include "tests/bench/peers/upstream_mock/mock_stream.h"

namespace runnel::bench {
namespace {

// Tokens of one stream per turn, so that a fast stream does not hold up the others.
constexpr int kMaxTokensPerTurn = 256;

struct MockOptions {
  int port = 0;
  int64_t tick_us = 100;
  bool chunked = true;
};

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Connection {
  int fd = -1;
  std::string in;
  std::string out;  // bytes that the socket has not taken
  std::optional<MockStream> stream;
  bool chunked = false;
  bool close = false;      // after the response
  bool scheduled = false;  // the schedule has it: it must not be deleted
};

class MockServer {
 public:
  explicit MockServer(const MockOptions& options)
      : options_(options),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        listener_(ListenOnLoopback(options.port, "bench-upstream-mock")),
        timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)) {
    Watch(listener_, EPOLLIN, &listener_);
    Watch(timer_, EPOLLIN, &timer_);
  }

  void Run() {
    std::array<epoll_event, 256> events;
    for (;;) {
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < count; ++i) OnReady(events[static_cast<size_t>(i)]);
      for (Connection* connection : closed_) {
        if (!connection->scheduled) delete connection;
      }
      closed_.clear();
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
      armed_us_ = 0;
      return;
    }
    auto* connection = static_cast<Connection*>(event.data.ptr);
    if ((event.events & EPOLLOUT) != 0 && !connection->out.empty()) Send(connection, "");
    if ((event.events & EPOLLIN) != 0) Receive(connection);
  }

  void Accept() {
    for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      auto* connection = new Connection;
      connection->fd = fd;
      ++connections_;
      ++open_;
      Watch(fd, EPOLLIN | EPOLLOUT | EPOLLET, connection);
    }
  }

  void Receive(Connection* connection) {
    std::array<char, 4096> buffer;
    while (connection->fd >= 0) {
      const ssize_t n = recv(connection->fd, buffer.data(), buffer.size(), 0);
      if (n < 0 && errno == EAGAIN) break;
      if (n <= 0) return Close(connection);
      connection->in.append(buffer.data(), static_cast<size_t>(n));
      if (connection->in.size() > kMaxHeadBytes + kMaxBodyBytes) return Close(connection);
    }
    Serve(connection);
  }

  // Serves the requests that have arrived, one after another.
  void Serve(Connection* connection) {
    while (connection->fd >= 0 && !connection->stream.has_value() && !connection->close) {
      MockHead head;
      std::string body;
      const MockParse parse = TakeRequest(&connection->in, &head, &body);
      if (parse == MockParse::kPartial) return;
      connection->close = head.close || parse == MockParse::kInvalid;
      if (parse == MockParse::kInvalid) return Respond(connection, "400 Bad Request", ErrorBody("malformed request"));
      if (connection->in.empty()) std::string().swap(connection->in);
      Route(connection, head, body);
    }
  }

  void Route(Connection* connection, const MockHead& head, const std::string& body) {
    if (head.method == "POST" && head.path == "/v1/chat/completions") return Start(connection, head, body, true);
    if (head.method == "POST" && head.path == "/v1/completions") return Start(connection, head, body, false);
    if (head.method == "GET" && head.path == "/v1/models") {
      return Respond(connection, "200 OK",
                     R"({"object":"list","data":[{"id":"mock","object":"model","created":1767225600,)"
                     R"("owned_by":"bench","max_model_len":2000000}]})");
    }
    if (head.method == "GET" && head.path == "/health") return Respond(connection, "200 OK", "{}");
    if (head.method == "GET" && head.path == "/stats") {
      return Respond(connection, "200 OK",
                     absl::StrCat("{\"connections\":", connections_, ",\"open_connections\":", open_,
                                  ",\"requests\":", requests_, ",\"finished\":", finished_, "}"));
    }
    Respond(connection, "404 Not Found", ErrorBody("unknown path"));
  }

  static std::string ErrorBody(std::string_view message) {
    return absl::StrCat("{\"error\":{\"message\":\"", absl::string_view(message.data(), message.size()),
                        "\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}");
  }

  void Respond(Connection* connection, std::string_view status, std::string_view body) {
    std::string response("HTTP/1.1 ");
    response.append(status).append("\r\ncontent-type: application/json\r\ncontent-length: ");
    absl::StrAppend(&response, body.size(), connection->close ? "\r\nconnection: close" : "", "\r\n\r\n");
    Send(connection, response.append(body));
  }

  void Start(Connection* connection, const MockHead& head, const std::string& body, bool chat) {
    const int64_t now = Now();
    MockRequest request;
    if (const std::string wrong = ReadMockRequest(body, chat, &request); !wrong.empty()) {
      return Respond(connection, "400 Bad Request", ErrorBody(wrong));
    }
    connection->chunked = options_.chunked && !head.http10;
    connection->close = head.close || !connection->chunked;
    connection->stream.emplace(request, ++requests_, now);
    event_.clear();
    connection->stream->AppendStart(&event_);
    chunk_.assign("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n");
    if (connection->chunked) chunk_.append("transfer-encoding: chunked\r\n");
    chunk_.append(connection->close ? "connection: close\r\n\r\n" : "\r\n");
    AppendBody(*connection);
    connection->scheduled = true;
    due_.emplace(connection->stream->due_us(), connection);
    Send(connection, chunk_);
  }

  // Appends the events of event_ to chunk_ in the framing of the response: a chunk for each event, like the servers for
  // which it stands.
  void AppendBody(const Connection& connection) {
    if (!connection.chunked) {
      chunk_.append(event_);
      return;
    }
    for (size_t begin = 0, end = 0; begin < event_.size(); begin = end) {
      end = event_.find("\n\n", begin) + 2;
      std::array<char, 20> size;
      const int digits = std::snprintf(size.data(), size.size(), "%zx\r\n", end - begin);
      chunk_.append(size.data(), static_cast<size_t>(digits)).append(event_, begin, end - begin).append("\r\n");
    }
  }

  void SendToken(Connection* connection) {
    event_.clear();
    connection->stream->AppendNext(Now(), &event_);
    chunk_.clear();
    AppendBody(*connection);
    if (connection->stream->ended() && connection->chunked) chunk_.append("0\r\n\r\n");
    Send(connection, chunk_);
  }

  void SendDue() {
    const int64_t now = Now();
    for (; !due_.empty() && due_.top().first <= now; due_.pop()) turn_.push_back(due_.top().second);
    for (Connection* connection : turn_) {
      // Generates no tokens while the socket takes nothing.
      for (int i = 0; i < kMaxTokensPerTurn && connection->fd >= 0 && connection->out.empty() &&
                      !connection->stream->ended() && connection->stream->due_us() <= now;
           ++i) {
        SendToken(connection);
      }
      Reschedule(connection, now);
    }
    turn_.clear();
    Arm(now);
  }

  void Reschedule(Connection* connection, int64_t now) {
    if (connection->fd >= 0 && !connection->stream->ended()) {
      due_.emplace(connection->out.empty() ? connection->stream->due_us() : now + 1000, connection);
      return;
    }
    connection->scheduled = false;
    if (connection->fd < 0) {
      delete connection;
      return;
    }
    ++finished_;
    connection->stream.reset();
    if (connection->close && connection->out.empty()) return Close(connection);
    Serve(connection);
  }

  void Arm(int64_t now) {
    if (due_.empty()) return;
    // Immediately if there was more to send than one turn allows.
    const int64_t at = due_.top().first <= now ? now + 1 : std::max(due_.top().first, now + options_.tick_us);
    if (armed_us_ != 0 && armed_us_ <= at) return;
    itimerspec spec{};
    spec.it_value.tv_sec = at / 1'000'000;
    spec.it_value.tv_nsec = at % 1'000'000 * 1000;
    timerfd_settime(timer_, TFD_TIMER_ABSTIME, &spec, nullptr);
    armed_us_ = at;
  }

  void Send(Connection* connection, const std::string& bytes) {
    const std::string* all = &bytes;
    if (!connection->out.empty()) all = &connection->out.append(bytes);
    size_t sent = 0;
    while (sent < all->size()) {
      const ssize_t n = send(connection->fd, all->data() + sent, all->size() - sent, MSG_NOSIGNAL);
      if (n < 0 && errno != EAGAIN) return Close(connection);
      if (n < 0) break;
      sent += static_cast<size_t>(n);
    }
    if (all == &connection->out) {
      connection->out.erase(0, sent);
    } else if (sent < bytes.size()) {
      connection->out = bytes.substr(sent);
    }
    if (connection->close && connection->out.empty() && !connection->stream.has_value()) Close(connection);
  }

  // Run deletes the connection once no event of this round can name it; a scheduled one is deleted by Reschedule.
  void Close(Connection* connection) {
    if (connection->fd < 0) return;
    close(std::exchange(connection->fd, -1));
    --open_;
    if (!connection->scheduled) closed_.push_back(connection);
  }

  const MockOptions options_;
  const int epoll_;
  int listener_;
  int timer_;
  int64_t armed_us_ = 0;  // 0: not armed
  uint64_t connections_ = 0;
  uint64_t open_ = 0;
  uint64_t requests_ = 0;
  uint64_t finished_ = 0;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  std::vector<Connection*> turn_;    // connections that were due at the start of the turn
  std::vector<Connection*> closed_;  // to delete at the end of the round
  std::string event_;
  std::string chunk_;
};

}  // namespace
}  // namespace runnel::bench

int main(int argc, char** argv) {
  runnel::bench::MockOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    if (arg.starts_with("--tick_us=")) {
      options.tick_us = std::atoll(argv[i] + 10);
    } else if (arg == "--unchunked") {
      options.chunked = false;
    } else {
      options.port = std::atoi(argv[i]);
    }
  }
  if (options.port <= 0 || options.tick_us < 0) {
    std::fprintf(stderr, "usage: bench-upstream-mock PORT [--tick_us=100] [--unchunked]\n");
    return 2;
  }
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  runnel::bench::MockServer(options).Run();
}
