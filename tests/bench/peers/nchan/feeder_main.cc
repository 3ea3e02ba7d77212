// Feeds nchan's channels like an inference service that publishes each token: one POST after another on persistent
// connections, pipelined, without waiting for responses. Its CPU time does not count as the server's.
//
//   bench-nchan-feeder PORT [flags of the load client; uses --streams, --pace, --stepped, --window and --warmup, the
//                            last two in seconds]
//
// It starts once all streams have subscribed, according to nchan's status page.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/bench/peers/token_source.h"

namespace runnel::bench {
namespace {

constexpr int kConnections = 8;
constexpr int kTickMs = 1;
// The same as the load client's --slack.
constexpr double kSlackSeconds = 2.5;

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  std::perror("bench-nchan-feeder: connect");
  std::exit(1);
}

// Reads `subscribers: 12` from the status page.
int Subscribers(int port) {
  const int fd = Connect(port);
  constexpr std::string_view kRequest = "GET /status HTTP/1.0\r\n\r\n";
  std::string page;
  if (send(fd, kRequest.data(), kRequest.size(), MSG_NOSIGNAL) > 0) {
    std::array<char, 4096> buffer;
    for (ssize_t n; (n = recv(fd, buffer.data(), buffer.size(), 0)) > 0;)
      page.append(buffer.data(), static_cast<size_t>(n));
  }
  close(fd);
  const size_t at = page.find("\nsubscribers: ");
  return at == std::string::npos ? 0 : std::atoi(page.c_str() + at + 14);
}

// One persistent connection. Responses are read and discarded.
struct Pipe {
  int fd = -1;
  std::string out;

  void Move() {
    std::array<char, 65536> ignored;
    while (recv(fd, ignored.data(), ignored.size(), MSG_DONTWAIT) > 0) {
    }
    const ssize_t n = out.empty() ? 0 : send(fd, out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) out.erase(0, static_cast<size_t>(n));
    if (n < 0 && errno != EAGAIN) std::exit(1);
  }
};

struct Feed {
  int streams = 1;
  TokenPlan plan;
};

class Feeder {
 public:
  Feeder(int port, const Feed& feed) {
    for (Pipe& pipe : pipes_) pipe.fd = Connect(port);
    for (int i = 0; i < feed.streams; ++i) {
      TokenPlan plan = feed.plan;
      plan.seed = static_cast<uint64_t>(i) + 1;
      if (!plan.stepped) plan.first_ms = 1000 / plan.pace * (static_cast<double>(i) / feed.streams);
      std::array<char, 40> id;
      std::snprintf(id.data(), id.size(), "gen_%026d", i);
      sources_.emplace_back(id.data(), plan);
      due_.emplace(sources_.back().due_us(), i);
    }
  }

  void Run() {
    while (!due_.empty() || Unsent()) {
      for (const int64_t now = NowMicros(); !due_.empty() && due_.top().first <= now;) {
        const int index = due_.top().second;
        due_.pop();
        Publish(index);
        const TokenSource& source = sources_[static_cast<size_t>(index)];
        if (!source.ended()) due_.emplace(source.due_us(), index);
      }
      std::array<pollfd, kConnections> polls;
      for (size_t i = 0; i < pipes_.size(); ++i) {
        pipes_[i].Move();
        polls[i] = {pipes_[i].fd, static_cast<short>(pipes_[i].out.empty() ? 0 : POLLOUT), 0};
      }
      poll(polls.data(), polls.size(), kTickMs);
    }
  }

 private:
  bool Unsent() const {
    for (const Pipe& pipe : pipes_) {
      if (!pipe.out.empty()) return true;
    }
    return false;
  }

  // A channel always uses the same connection, so that its messages stay in order.
  void Publish(int index) {
    event_.clear();
    sources_[static_cast<size_t>(index)].AppendNext(NowMicros(), &event_);
    std::array<char, 128> head;
    const int n =
        std::snprintf(head.data(), head.size(), "POST /pub/%d HTTP/1.1\r\nhost: f\r\ncontent-length: %zu\r\n\r\n",
                      index, event_.size());
    std::string& out = pipes_[static_cast<size_t>(index) % pipes_.size()].out;
    out.append(head.data(), static_cast<size_t>(n)).append(event_);
  }

  std::array<Pipe, kConnections> pipes_;
  std::vector<TokenSource> sources_;
  std::priority_queue<std::pair<int64_t, int>, std::vector<std::pair<int64_t, int>>, std::greater<>> due_;
  std::string event_;
};

Feed FeedOf(int argc, char** argv) {
  Feed feed;
  double seconds = kSlackSeconds;
  for (int i = 2; i < argc; ++i) {
    const std::string_view flag = argv[i];
    const size_t equals = flag.find('=');
    const std::string_view name = flag.substr(0, equals);
    const double value = equals == std::string_view::npos ? 0 : std::atof(argv[i] + equals + 1);
    if (name == "--streams") feed.streams = static_cast<int>(value);
    if (name == "--pace") feed.plan.pace = value;
    if (name == "--stepped") feed.plan.stepped = true;
    if (name == "--window" || name == "--warmup") seconds += value;
  }
  feed.plan.tokens = static_cast<uint32_t>(1 + seconds * feed.plan.pace);
  return feed;
}

}  // namespace
}  // namespace runnel::bench

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const int port = std::atoi(argv[1]);
  const runnel::bench::Feed feed = runnel::bench::FeedOf(argc, argv);
  for (int tries = 0; runnel::bench::Subscribers(port) < feed.streams; ++tries) {
    if (tries > 6000) return 1;
    poll(nullptr, 0, 10);
  }
  runnel::bench::Feeder(port, feed).Run();
}
