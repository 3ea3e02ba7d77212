#include "tests/chaos/fault_proxy.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace runnel::chaos {
namespace {

namespace net = boost::asio;
using tcp = net::ip::tcp;
using boost::system::error_code;
template <typename T>
using Awaitable = net::awaitable<T>;

constexpr auto kResult = net::as_tuple(net::use_awaitable);
constexpr size_t kBufferBytes = 16 << 10;

void Shutdown(tcp::socket& socket) {
  error_code ignored;
  socket.shutdown(tcp::socket::shutdown_send, ignored);
}

void Reset(tcp::socket& socket) {
  error_code ignored;
  socket.set_option(net::socket_base::linger(true, 0), ignored);
  socket.close(ignored);
}

// A client's connection and the connection to the target. Owned by its pumps.
struct Pair : std::enable_shared_from_this<Pair> {
  Pair(tcp::socket from_client, Fault planned, std::chrono::milliseconds kept, std::shared_ptr<FaultProxy::Counts> sums)
      : client(std::move(from_client)),
        server(client.get_executor()),
        second(client.get_executor()),
        timer(client.get_executor()),
        fault(planned),
        linger(kept),
        counts(std::move(sums)) {
    ++counts->open;
  }
  ~Pair() { --counts->open; }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  // Counts the fault, once, when it takes effect.
  void Struck() {
    if (!std::exchange(counted, true)) ++counts->struck[static_cast<size_t>(fault.kind)];
  }

  // Closes both sides after the linger time, even if they still send.
  void CloseLater() {
    timer.expires_after(linger);
    timer.async_wait([self = shared_from_this()](error_code) {
      Reset(self->client);
      Reset(self->server);
      Reset(self->second);
    });
  }

  tcp::socket client;
  tcp::socket server;
  tcp::socket second;  // for kDuplicate
  net::steady_timer timer;
  const Fault fault;
  const std::chrono::milliseconds linger;
  const std::shared_ptr<FaultProxy::Counts> counts;
  bool counted = false;
  bool responded = false;  // the server has sent bytes
  bool swallow = false;    // bytes are read and discarded
  bool stalled = false;    // nothing is read
};

bool StrikesAtAPlace(FaultKind kind) {
  return kind == FaultKind::kCut || kind == FaultKind::kReset || kind == FaultKind::kTruncate ||
         kind == FaultKind::kHalfOpen || kind == FaultKind::kStall || kind == FaultKind::kGarbage ||
         kind == FaultKind::kRepeat;
}

// The bytes that kGarbage or kRepeat adds after `passed`, the bytes passed on so far.
std::string ExtraBytes(const Fault& fault, std::string_view passed) {
  const size_t count = std::min<size_t>(fault.extra_bytes, passed.size());
  if (fault.kind == FaultKind::kRepeat) return std::string(passed.substr(passed.size() - count));
  std::string bytes;
  // The low bits of a linear congruential generator are not random.
  for (uint64_t state = fault.noise; bytes.size() < fault.extra_bytes; state = state * 6364136223846793005 + 1) {
    bytes.push_back(static_cast<char>(state >> 56));
  }
  return bytes;
}

// Applies a fault that ends the connection, or one of its directions. False if the direction is over.
bool Strike(Pair* pair, tcp::socket& to) {
  pair->Struck();
  switch (pair->fault.kind) {
    case FaultKind::kReset:
      Reset(pair->client);
      Reset(pair->server);
      return false;
    case FaultKind::kCut:
    case FaultKind::kCloseIdle:
      // Not closed, because closing with unread bytes would send a reset.
      Shutdown(pair->client);
      Shutdown(pair->server);
      break;
    case FaultKind::kTruncate:
      Shutdown(to);
      break;
    case FaultKind::kStall:
      pair->stalled = true;
      pair->CloseLater();
      return false;
    default:
      break;
  }
  pair->swallow = true;
  pair->CloseLater();
  return true;
}

Awaitable<void> Sleep(std::chrono::milliseconds time) {
  net::steady_timer timer(co_await net::this_coro::executor, time);
  co_await timer.async_wait(kResult);
}

// Reads the bytes to pass on next: those available, or for kBuffer as many as are held back.
Awaitable<std::pair<error_code, size_t>> ReadSome(std::shared_ptr<Pair> pair, tcp::socket* from,
                                                  net::mutable_buffer buffer) {
  auto [ec, bytes] = co_await from->async_read_some(buffer, kResult);
  if (ec || pair->fault.kind != FaultKind::kBuffer || pair->fault.hold_bytes <= bytes) co_return std::pair(ec, bytes);
  pair->Struck();
  net::steady_timer timer(co_await net::this_coro::executor, pair->fault.delay);
  const auto over = std::make_shared<bool>(false);
  timer.async_wait([pair, from, over](error_code) {
    error_code ignored;
    if (!std::exchange(*over, true) && from->is_open()) from->cancel(ignored);
  });
  const size_t enough = std::min<size_t>(pair->fault.hold_bytes, buffer.size());
  // A cancel has no effect on a read whose bytes have just arrived, so the time is looked at before each read.
  while (bytes < enough && !*over) {
    auto [end, more] = co_await from->async_read_some(buffer + bytes, kResult);
    bytes += more;
    if (end) break;
  }
  *over = true;
  timer.cancel();
  // The next read reports an end again; a timeout is not an error.
  co_return std::pair(error_code(), bytes);
}

// Writes all bytes. ReadSome may cancel what is pending on a socket, which does not end the write.
Awaitable<error_code> Write(tcp::socket* to, std::string_view bytes) {
  error_code result = net::error::operation_aborted;
  while (result == net::error::operation_aborted && to->is_open()) {
    auto [ec, written] = co_await net::async_write(*to, net::buffer(bytes), kResult);
    bytes.remove_prefix(written);
    result = ec;
  }
  co_return result;
}

// Passes on `bytes` to the client, each in a packet of its own.
Awaitable<bool> Drip(std::shared_ptr<Pair> pair, std::string_view bytes) {
  constexpr size_t kBytesPerRest = 64;
  pair->Struck();
  for (size_t i = 0; i < bytes.size(); ++i) {
    const error_code ec = co_await Write(&pair->client, bytes.substr(i, 1));
    if (ec) co_return false;
    if (i % kBytesPerRest == 0) co_await Sleep(std::chrono::milliseconds(1));
  }
  co_return true;
}

// Passes on `bytes` with the fault applied. False if the other side accepts no more.
Awaitable<bool> PassOn(std::shared_ptr<Pair> pair, tcp::socket* to, const char* data, size_t bytes) {
  if (pair->fault.kind == FaultKind::kDelay) {
    pair->Struck();
    co_await Sleep(pair->fault.delay);
  }
  const std::string_view all(data, bytes);
  if (pair->fault.kind == FaultKind::kDrip && to == &pair->client) {
    const bool passed = co_await Drip(pair, all);
    co_return passed;
  }
  const error_code ec = co_await Write(to, all);
  if (to == &pair->server && pair->second.is_open()) {
    auto [ignored, also] = co_await net::async_write(pair->second, net::buffer(data, bytes), kResult);
    if (!ignored) pair->Struck();
  }
  if (pair->fault.kind == FaultKind::kThrottle) {
    pair->Struck();
    co_await Sleep(std::chrono::milliseconds(bytes * 1000 / pair->fault.bytes_per_second));
  }
  co_return !ec;
}

// Pumps one direction to its end.
Awaitable<void> Pump(std::shared_ptr<Pair> pair, bool upstream) {
  tcp::socket* from = upstream ? &pair->client : &pair->server;
  tcp::socket* to = upstream ? &pair->server : &pair->client;
  const bool changes = pair->fault.kind == FaultKind::kGarbage || pair->fault.kind == FaultKind::kRepeat;
  bool placed = StrikesAtAPlace(pair->fault.kind) && pair->fault.upstream == upstream;
  std::vector<char> buffer(kBufferBytes);
  uint64_t passed = 0;
  while (!pair->stalled) {
    auto [ec, bytes] = co_await ReadSome(pair, from, net::buffer(buffer));
    if (ec || pair->stalled) break;
    if (pair->swallow) continue;
    if (!upstream) {
      pair->responded = true;
    } else if (pair->responded && pair->fault.kind == FaultKind::kCloseIdle) {
      Strike(pair.get(), *to);
      continue;
    }
    const size_t room = placed ? std::min<uint64_t>(bytes, pair->fault.after_bytes - passed) : bytes;
    if (room > 0 && !co_await PassOn(pair, to, buffer.data(), room)) break;
    passed += room;
    if (!placed || passed != pair->fault.after_bytes || pair->swallow) continue;
    if (!changes) {
      if (!Strike(pair.get(), *to)) co_return;
      continue;
    }
    pair->Struck();
    const std::string rest = ExtraBytes(pair->fault, {buffer.data(), room}).append(buffer.data() + room, bytes - room);
    placed = false;
    const bool accepted = co_await PassOn(pair, to, rest.data(), rest.size());
    if (!accepted) break;
  }
  if (pair->stalled || pair->swallow) co_return;
  // The end of this direction; the other continues.
  Shutdown(*to);
  if (upstream && pair->second.is_open()) Shutdown(pair->second);
}

// Reads and discards the response on the second connection of kDuplicate.
Awaitable<void> Drain(std::shared_ptr<Pair> pair) {
  std::vector<char> buffer(kBufferBytes);
  for (;;) {
    auto [ec, bytes] = co_await pair->second.async_read_some(net::buffer(buffer), kResult);
    if (ec) co_return;
  }
}

Awaitable<void> Connect(std::shared_ptr<Pair> pair, tcp::endpoint target) {
  auto [ec] = co_await pair->server.async_connect(target, kResult);
  // A client whose target refuses the connection is reset, as it would be without the proxy.
  if (ec) co_return Reset(pair->client);
  const auto executor = co_await net::this_coro::executor;
  error_code ignored;
  pair->client.set_option(tcp::no_delay(true), ignored);
  pair->server.set_option(tcp::no_delay(true), ignored);
  if (pair->fault.kind == FaultKind::kDuplicate) {
    auto [failed] = co_await pair->second.async_connect(target, kResult);
    if (!failed) net::co_spawn(executor, Drain(pair), net::detached);
  }
  net::co_spawn(executor, Pump(pair, true), net::detached);
  net::co_spawn(executor, Pump(pair, false), net::detached);
}

Awaitable<void> Accept(std::shared_ptr<tcp::acceptor> acceptor, tcp::endpoint target, FaultOptions options,
                       std::pair<uint64_t, std::chrono::milliseconds> route_and_linger,
                       std::shared_ptr<FaultProxy::Counts> counts) {
  const auto [route, linger] = route_and_linger;
  for (uint64_t connection = 0;; ++connection) {
    auto [ec, socket] = co_await acceptor->async_accept(kResult);
    if (!acceptor->is_open()) co_return;
    // For example no free descriptors; some will be free soon.
    if (ec) {
      co_await Sleep(std::chrono::milliseconds(10));
      continue;
    }
    ++counts->connections;
    auto pair = std::make_shared<Pair>(std::move(socket), FaultOf(options, route, connection), linger, counts);
    net::co_spawn(acceptor->get_executor(), Connect(std::move(pair), target), net::detached);
  }
}

}  // namespace

FaultProxy::FaultProxy(net::io_context* io, FaultOptions options, std::chrono::milliseconds linger)
    : io_(io), options_(std::move(options)), linger_(linger) {}

FaultProxy::~FaultProxy() {
  for (const auto& acceptor : acceptors_) {
    error_code ignored;
    acceptor->close(ignored);
  }
}

tcp::endpoint FaultProxy::Add(const Route& route) {
  auto acceptor = std::make_shared<tcp::acceptor>(*io_, route.listen);
  const tcp::endpoint endpoint = acceptor->local_endpoint();
  net::co_spawn(*io_, Accept(acceptor, route.target, options_, {acceptors_.size(), linger_}, counts_), net::detached);
  acceptors_.push_back(std::move(acceptor));
  return endpoint;
}

}  // namespace runnel::chaos
