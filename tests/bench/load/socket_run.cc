#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "tests/bench/load/codec.h"
#include "tests/bench/load/load_run.h"

namespace runnel::bench {
namespace {

constexpr int kMaxEpollEvents = 256;
// Shared by all streams; incomplete items are copied into the stream's buffer.
constexpr size_t kReadBytes = 64 << 10;
// Receive buffer of a stalled reader: as small as the kernel allows, so that it stalls soon.
constexpr int kStalledReceiveBytes = 4096;

sockaddr_in AddressOf(const LoadOptions& options) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(options.port));
  inet_pton(AF_INET, options.host.c_str(), &address.sin_addr);
  return address;
}

class Stream final : public Codec::Sink {
 public:
  Stream(const LoadOptions* options, int index, Totals* totals)
      : codec_(MakeCodec(options, index)),
        stalled_(index < options->stalled),
        totals_(totals),
        check_(totals, MockPlanOf(*options, index)) {}
  ~Stream() override { CloseSocket(); }

  // False if the stream failed immediately.
  bool Connect(int epoll, const sockaddr_in& address) {
    epoll_ = epoll;
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd_ < 0) return Break(std::string("socket: ") + strerror(errno));
    const int one = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (stalled_) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &kStalledReceiveBytes, sizeof kStalledReceiveBytes);
    if (connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS) {
      return Break(std::string("connect: ") + strerror(errno));
    }
    out_ = codec_->Opening();
    Watch(EPOLL_CTL_ADD, EPOLLOUT);
    return true;
  }

  // Call when the socket can be read or written. False once the stream is over.
  bool OnReady(uint32_t events, char* buffer) {
    if ((events & EPOLLOUT) != 0 && !Flush()) return false;
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) return Read(buffer);
    return true;
  }

  // Continues reading if the stream was stalled.
  void Resume() {
    if (std::exchange(stalled_, false) && std::exchange(held_, false)) Watch(EPOLL_CTL_MOD, EPOLLIN);
  }
  bool over() const { return fd_ < 0; }
  // A stalled stream counts as ended normally; the run does not wait for it.
  bool stalled() const { return held_; }

  void OnOpened() override {
    if (!std::exchange(opened_, true)) ++totals_->opened;
  }
  void OnEvent(Event* event) override {
    check_.OnEvent(event, now_us_);
    if (event->kind == Event::Kind::kStarted) OnOpened();
  }
  uint64_t last() const override { return check_.last(); }
  bool ended() const override { return check_.ended(); }

  void CloseSocket() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  void Watch(int operation, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.ptr = this;
    epoll_ctl(epoll_, operation, fd_, &event);
    watched_ = events;
  }

  bool Flush() {
    if (!std::exchange(requested_, true)) check_.OnRequested(NowMicros());
    while (!out_.empty()) {
      const ssize_t n = send(fd_, out_.data(), out_.size(), MSG_NOSIGNAL);
      if (n < 0 && errno == EAGAIN) break;
      if (n < 0) return Break(std::string("write: ") + strerror(errno));
      totals_->bytes_out += static_cast<uint64_t>(n);
      out_.erase(0, static_cast<size_t>(n));
    }
    const uint32_t wanted = out_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT;
    if (wanted != watched_) Watch(EPOLL_CTL_MOD, wanted);
    return true;
  }

  bool Read(char* buffer) {
    const ssize_t n = recv(fd_, buffer, kReadBytes, 0);
    if (n < 0 && errno == EAGAIN) return true;
    if (n < 0) return Break(std::string("read: ") + strerror(errno));
    if (n == 0) return Break("closed by the server");
    now_us_ = NowMicros();
    totals_->bytes_in += static_cast<uint64_t>(n);
    in_.append(buffer, static_cast<size_t>(n));
    const std::string fault = codec_->OnBytes(&in_, &out_, this);
    if (!fault.empty()) return Break(fault);
    if (check_.ended()) return End();
    // An idle stream keeps no buffer in the client either.
    if (in_.empty() && in_.capacity() > 4096) std::string().swap(in_);
    if (stalled_ && opened_) {
      held_ = true;
      Watch(EPOLL_CTL_MOD, 0);
      return true;
    }
    return out_.empty() || Flush();
  }

  bool End() {
    if (!check_.verified()) ++totals_->broken;
    CloseSocket();
    return false;
  }

  bool Break(const std::string& why) {
    ++totals_->broken;
    totals_->Fault(why);
    // The run must not count a broken stream as open.
    if (opened_) --totals_->opened;
    CloseSocket();
    return false;
  }

  const std::unique_ptr<Codec> codec_;
  bool stalled_;
  Totals* const totals_;
  StreamCheck check_;
  int epoll_ = -1;
  int fd_ = -1;
  uint32_t watched_ = 0;
  bool requested_ = false;
  bool opened_ = false;
  bool held_ = false;
  int64_t now_us_ = 0;
  std::string in_;
  std::string out_;
};

class SocketRun {
 public:
  explicit SocketRun(const LoadOptions& options)
      : options_(options),
        clock_(&options, &result_),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        address_(AddressOf(options)) {
    streams_.reserve(static_cast<size_t>(options.streams));
  }
  ~SocketRun() { close(epoll_); }

  LoadResult Run() {
    int64_t now = NowMicros();
    while (!Over(now)) {
      OpenMore(now);
      Wait();
      now = NowMicros();
      if (!clock_.Advance(now)) continue;
      for (const auto& stream : streams_) stream->Resume();
      if (options_.cut) break;
    }
    result_.timed_out = clock_.timed_out(now);
    clock_.Finish(now);
    for (const auto& stream : streams_) stream->CloseSocket();
    return std::move(result_);
  }

 private:
  bool Over(int64_t now) const {
    if (clock_.timed_out(now)) return true;
    const auto count = static_cast<uint64_t>(options_.streams);
    if (options_.idle && options_.window == absl::ZeroDuration()) {
      return result_.totals.opened + result_.totals.broken >= count;
    }
    return over_ >= count;
  }

  void OpenMore(int64_t now) {
    for (const int may = clock_.MayHaveOpened(now); static_cast<int>(streams_.size()) < may;) {
      const int index = static_cast<int>(streams_.size());
      streams_.push_back(std::make_unique<Stream>(&options_, index, &result_.totals));
      if (!streams_.back()->Connect(epoll_, address_)) ++over_;
    }
  }

  // Waits for bytes and reads them. A sender on the same machine pays for waking its reader, and pays more often the
  // faster the reader is; a sender behind a network never does. So the reader waits for a moment, like a network card
  // that gathers packets.
  void Wait() {
    if (const absl::Duration left = options_.coalesce - absl::Microseconds(NowMicros() - last_round_us_);
        left > absl::ZeroDuration()) {
      absl::SleepFor(left);
    }
    std::array<epoll_event, kMaxEpollEvents> events;
    const int wait_ms = options_.open_rate > 0 && static_cast<int>(streams_.size()) < options_.streams ? 1 : 10;
    const int count = epoll_wait(epoll_, events.data(), kMaxEpollEvents, wait_ms);
    last_round_us_ = NowMicros();
    for (int i = 0; i < count; ++i) {
      const auto& event = events[static_cast<size_t>(i)];
      if (!static_cast<Stream*>(event.data.ptr)->OnReady(event.events, buffer_.data())) ++over_;
    }
  }

  const LoadOptions& options_;
  LoadResult result_;
  RunClock clock_;
  const int epoll_;
  const sockaddr_in address_;
  std::vector<char> buffer_ = std::vector<char>(kReadBytes);
  std::vector<std::unique_ptr<Stream>> streams_;
  uint64_t over_ = 0;
  int64_t last_round_us_ = 0;
};

}  // namespace

LoadResult RunOverSockets(const LoadOptions& options) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  SocketRun run(options);
  return run.Run();
}

}  // namespace runnel::bench
