#include "services/inference/engines/upstream/upstream_connection.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/prefetch.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

using SteadyClock = std::chrono::steady_clock;

absl::Status LoadFiles(const UpstreamConnectionOptions& options, SSL_CTX* tls) {
  if (options.ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(tls);
  } else if (SSL_CTX_load_verify_locations(tls, options.ca_file.c_str(), nullptr) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("upstream: '", options.ca_file, "' is not a PEM file of certificate authorities"));
  }
  if (options.client_cert_file.empty()) return absl::OkStatus();
  if (SSL_CTX_use_certificate_chain_file(tls, options.client_cert_file.c_str()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("upstream: '", options.client_cert_file, "' is not a PEM file of a certificate"));
  }
  if (SSL_CTX_use_PrivateKey_file(tls, options.client_key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(tls) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("upstream: '", options.client_key_file, "' is not a PEM file of the certificate's key"));
  }
  return absl::OkStatus();
}

bool IsAddress(const std::string& host) {
  ErrorCode ec;
  net::ip::make_address(host, ec);
  return !ec;
}

// Makes `ssl` check the certificate's name, and ask for it (SNI).
void SetServerName(const std::string& host, SSL* ssl) {
  if (IsAddress(host)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
  } else {
    // As SSL_set_tlsext_host_name, a macro with an old-style cast.
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(host.c_str()));
    SSL_set1_host(ssl, host.c_str());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<UpstreamTarget>> UpstreamTarget::Create(const UpstreamConnectionOptions& options) {
  std::unique_ptr<UpstreamTarget> target(new UpstreamTarget(options));
  if (!options.url.tls) return target;
  target->tls_.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* tls = target->tls_.get();
  if (tls == nullptr) return absl::InternalError("upstream: OpenSSL has no memory for a context");
  SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
  SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, nullptr);
  // Idle streams hold no buffers of OpenSSL.
  SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  RETURN_IF_ERROR(LoadFiles(options, tls));
  return target;
}

std::string UpstreamTarget::Request(std::string_view path, std::string_view body) const {
  const bool post = !body.empty();
  std::string request =
      absl::StrCat(post ? "POST " : "GET ", options_.url.base_path, base::ToAbsl(path),
                   " HTTP/1.1\r\nHost: ", options_.url.authority, "\r\nUser-Agent: runnel-inference\r\nAccept: ",
                   // Compressed events would be delayed until a block is full.
                   post ? "text/event-stream" : "application/json", "\r\nAccept-Encoding: identity\r\n");
  if (!options_.api_key.empty()) absl::StrAppend(&request, "Authorization: Bearer ", options_.api_key, "\r\n");
  if (post) absl::StrAppend(&request, "Content-Type: application/json\r\nContent-Length: ", body.size(), "\r\n");
  absl::StrAppend(&request, "\r\n", base::ToAbsl(body));
  return request;
}

// Shared with the callback of the resolver, which may come after the connection has been destroyed.
struct UpstreamConnection::Lookup {
  std::vector<Endpoint> addresses;
  bool done = false;
  Timer* waiter = nullptr;
};

UpstreamConnection::UpstreamConnection(net::io_context* io, UpstreamResolver* resolver, const UpstreamTarget* target)
    : io_(io), resolver_(resolver), target_(target), socket_(*io), ssl_(nullptr, &SSL_free) {}

UpstreamConnection::~UpstreamConnection() { Close(); }

Awaitable<std::vector<Endpoint>> UpstreamConnection::Resolve() {
  auto lookup = std::make_shared<Lookup>();
  const UpstreamUrl& url = target_->options().url;
  resolver_->Resolve(url.host, url.port, [lookup, io = io_](std::vector<Endpoint> addresses) {
    net::post(*io, [lookup, addresses = std::move(addresses)]() mutable {
      lookup->addresses = std::move(addresses);
      lookup->done = true;
      if (lookup->waiter != nullptr) lookup->waiter->cancel();
    });
  });
  Timer timer(*io_, Timer::time_point::max());
  lookup->waiter = waiting_ = &timer;
  if (!closed_) co_await timer.async_wait(kAwait);
  lookup->waiter = waiting_ = nullptr;
  co_return std::move(lookup->addresses);
}

Awaitable<UpstreamConnection::Connected> UpstreamConnection::Connect() {
  if (connected_) co_return Connected::kYes;
  const std::vector<Endpoint> addresses = co_await Resolve();
  for (const Endpoint& address : addresses) {
    if (closed_) break;
    const bool open = co_await ConnectTo(address);
    if (!open) continue;
    if (target_->tls() != nullptr) {
      const bool trusted = co_await Handshake();
      if (!trusted) co_return closed_ ? Connected::kNo : Connected::kUntrusted;
    }
    connected_ = true;
    co_return Connected::kYes;
  }
  co_return Connected::kNo;
}

Awaitable<bool> UpstreamConnection::ConnectTo(Endpoint endpoint) {
  ErrorCode ec;
  socket_.close(ec);
  protocol_ = endpoint.protocol();
  const auto [error] = co_await socket_.async_connect(endpoint, kAwait);
  if (error || closed_) co_return false;
  socket_.set_option(net::ip::tcp::no_delay(true), ec);
  socket_.set_option(net::socket_base::keep_alive(true), ec);
  socket_.native_non_blocking(true, ec);
  co_return !ec;
}

Awaitable<bool> UpstreamConnection::Handshake() {
  ssl_.reset(SSL_new(target_->tls()));
  if (ssl_ == nullptr || SSL_set_fd(ssl_.get(), socket_.native_handle()) != 1) co_return false;
  SetServerName(target_->options().url.host, ssl_.get());
  while (true) {
    ERR_clear_error();
    const int result = SSL_connect(ssl_.get());
    if (result == 1) co_return true;
    const bool ready = co_await WaitForTls(result);
    if (!ready) co_return false;
  }
}

Awaitable<bool> UpstreamConnection::WaitForTls(int result) {
  const int error = SSL_get_error(ssl_.get(), result);
  if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) co_return false;
  const bool ready = co_await WaitFor(error == SSL_ERROR_WANT_READ ? TcpSocket::wait_read : TcpSocket::wait_write);
  co_return ready;
}

Awaitable<bool> UpstreamConnection::WaitFor(TcpSocket::wait_type what) {
  if (closed_) co_return false;
  if (fd_) {
    ErrorCode ec;
    socket_.assign(protocol_, fd_.get(), ec);
    if (ec) co_return false;
    fd_.release();
  }
  const auto [error] = co_await socket_.async_wait(what, kAwait);
  co_return !error && !closed_;
}

Awaitable<bool> UpstreamConnection::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    if (closed_) co_return false;
    if (ssl_ != nullptr) {
      ERR_clear_error();
      size_t size = 0;
      const int result = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &size);
      if (result == 1) {
        bytes.remove_prefix(size);
        continue;
      }
      const bool ready = co_await WaitForTls(result);
      if (!ready) co_return false;
      continue;
    }
    const ssize_t size = send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (size >= 0) {
      bytes.remove_prefix(static_cast<size_t>(size));
      continue;
    }
    if (errno != EAGAIN && errno != EINTR) co_return false;
    const bool ready = co_await WaitFor(TcpSocket::wait_write);
    if (!ready) co_return false;
  }
  co_return true;
}

Awaitable<size_t> UpstreamConnection::Read(std::span<char> buffer) {
  if (ssl_ == nullptr && !more_) {
    const bool ready = co_await WaitFor(TcpSocket::wait_read);
    if (!ready) co_return 0;
  }
  while (!closed_) {
    size_t size = 0;
    const Got got = ReadNow(buffer, &size);
    if (got != Got::kNothing) co_return size;
    const bool ready = co_await WaitFor(wait_);
    if (!ready) co_return 0;
  }
  co_return 0;
}

UpstreamConnection::Got UpstreamConnection::ReadNow(std::span<char> buffer, size_t* size) {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    const int result = SSL_read_ex(ssl_.get(), buffer.data(), buffer.size(), size);
    // There may be another record.
    more_ = result == 1;
    if (result == 1) return Got::kBytes;
    *size = 0;
    const int error = SSL_get_error(ssl_.get(), result);
    wait_ = error == SSL_ERROR_WANT_WRITE ? TcpSocket::wait_write : TcpSocket::wait_read;
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? Got::kNothing : Got::kEnd;
  }
  wait_ = TcpSocket::wait_read;
  ssize_t result = 0;
  do {
    result = recv(fd(), buffer.data(), buffer.size(), 0);
  } while (result < 0 && errno == EINTR);
  more_ = result == static_cast<ssize_t>(buffer.size());
  *size = static_cast<size_t>(std::max<ssize_t>(result, 0));
  if (result > 0) return Got::kBytes;
  return result < 0 && errno == EAGAIN ? Got::kNothing : Got::kEnd;
}

Awaitable<bool> UpstreamConnection::ReadPaced(UpstreamPoller* poller, std::span<char> buffer, const Touched& touched,
                                              absl::FunctionRef<bool(std::string_view)> take) {
  if (closed_) co_return false;
  touched_ = touched;
  if (!fd_) {
    ErrorCode ec;
    fd_.reset(socket_.release(ec));
    if (ec) co_return false;
  }
  Timer done(*io_, Timer::time_point::max());
  Paced paced{.poller = poller, .buffer = buffer, .take = take, .done = &done};
  // It is readable at first, even if everything has been read: so what arrived before is found.
  if (!poller->Add(fd_.get(), this)) co_return false;
  paced_ = &paced;
  try {
    co_await done.async_wait(kAwait);
  } catch (...) {
    if (paced_ != nullptr) EndPaced();
    throw;
  }
  if (paced.error != nullptr) std::rethrow_exception(paced.error);
  co_return paced.satisfied;
}

void UpstreamConnection::OnReadable(bool closed) noexcept {
  // So many reads, so that a fast server does not keep the loop from the others.
  constexpr int kReads = 4;
  Paced* const paced = paced_;
  paced->closed |= closed;
  try {
    for (int i = 0; i < kReads; ++i) {
      size_t size = 0;
      const Got got = ReadNow(paced->buffer, &size);
      if (got == Got::kNothing) return;
      paced->satisfied = got == Got::kBytes && !paced->take({paced->buffer.data(), size});
      // `take` may have closed the connection.
      if (paced_ == nullptr) return;
      if (paced->satisfied || got == Got::kEnd) return EndPaced();
      if (!more_ && !paced->closed) return;
    }
    paced->poller->Again(this);
  } catch (...) {
    paced->error = std::current_exception();
    if (paced_ != nullptr) EndPaced();
  }
}

void UpstreamConnection::Prefetch() const noexcept {
  if (paced_ == nullptr) return;
  base::Prefetch(base::MemoryOf(*paced_));
  for (const std::span<const std::byte> memory : touched_) base::Prefetch(memory);
}

void UpstreamConnection::EndPaced() {
  Paced* const paced = std::exchange(paced_, nullptr);
  paced->poller->Remove(fd_.get(), this);
  paced->done->cancel();
}

void UpstreamConnection::Close() {
  closed_ = true;
  connected_ = false;
  if (waiting_ != nullptr) waiting_->cancel();
  if (paced_ != nullptr) EndPaced();
  ErrorCode ec;
  socket_.close(ec);
  fd_.reset();
}

bool UpstreamConnection::IsIdle() const {
  if (!connected_) return false;
  char byte = 0;
  // TLS 1.3 servers send session tickets, so bytes in the socket say nothing about such a connection.
  const ssize_t size = recv(fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return size < 0 ? errno == EAGAIN : size > 0 && ssl_ != nullptr;
}

UpstreamConnectionPool::~UpstreamConnectionPool() {
  idle_.clear();
  SetGauge();
}

std::unique_ptr<UpstreamConnection> UpstreamConnectionPool::Take() {
  CloseOld();
  std::unique_ptr<UpstreamConnection> connection;
  while (!idle_.empty() && connection == nullptr) {
    connection = std::move(idle_.back().connection);
    idle_.pop_back();
    if (!connection->IsIdle()) connection.reset();
  }
  SetGauge();
  return connection;
}

void UpstreamConnectionPool::Put(std::unique_ptr<UpstreamConnection> connection) {
  CloseOld();
  if (idle_.size() < max_connections_) idle_.push_back({std::move(connection), SteadyClock::now()});
  SetGauge();
}

void UpstreamConnectionPool::CloseOld() {
  const auto oldest = SteadyClock::now() - max_idle_;
  const auto keep = std::find_if(idle_.begin(), idle_.end(), [&](const Idle& each) { return each.since > oldest; });
  idle_.erase(idle_.begin(), keep);
  SetGauge();
}

void UpstreamConnectionPool::SetGauge() {
  idle_gauge_->Increment(static_cast<double>(idle_.size()) - static_cast<double>(gauged_));
  gauged_ = idle_.size();
}

}  // namespace runnel::inference
