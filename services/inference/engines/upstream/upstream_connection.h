#pragma once

#include <openssl/ssl.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/metrics.h"
#include "services/base/unique_fd.h"
#include "services/inference/engines/upstream/upstream_net.h"
#include "services/inference/engines/upstream/upstream_poller.h"
#include "services/inference/engines/upstream/upstream_resolver.h"
#include "services/inference/engines/upstream/upstream_url.h"

namespace runnel::inference {

struct UpstreamConnectionOptions {
  UpstreamUrl url;
  std::string api_key;           // empty: none is sent
  std::string ca_file;           // PEM; empty: the system's
  std::string client_cert_file;  // PEM of a certificate chain to present; empty: none
  std::string client_key_file;   // PEM of its key
  absl::Duration connect_timeout;
  absl::Duration write_timeout;
  absl::Duration first_byte_timeout;  // from when the request is written
};

// What connections to one upstream share. Immutable, so that every loop may use it.
class UpstreamTarget {
 public:
  // InvalidArgument if a file of a certificate or key cannot be used.
  static absl::StatusOr<std::unique_ptr<UpstreamTarget>> Create(const UpstreamConnectionOptions& options);

  const UpstreamConnectionOptions& options() const { return options_; }
  // Null without TLS.
  SSL_CTX* tls() const { return tls_.get(); }
  // A request of HTTP/1.1; `path` is below the URL's base path and begins with '/'. With a body it is a POST of JSON
  // that accepts an event stream, otherwise a GET of JSON.
  std::string Request(std::string_view path, std::string_view body) const;

 private:
  explicit UpstreamTarget(const UpstreamConnectionOptions& options) : options_(options), tls_(nullptr, &SSL_CTX_free) {}

  const UpstreamConnectionOptions options_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> tls_;
};

// A connection to an upstream, over TLS or not, that waits without a thread and without a buffer. Confined to the
// thread of its loop; one coroutine at a time calls Connect, Write, Read or ReadPaced. The process must ignore SIGPIPE.
class UpstreamConnection final : private UpstreamPoller::Reader {
 public:
  // All must outlive it.
  UpstreamConnection(net::io_context* io, UpstreamResolver* resolver, const UpstreamTarget* target);
  ~UpstreamConnection();

  enum class Connected { kYes, kNo, kUntrusted };  // kUntrusted: the TLS handshake or the certificate's check failed
  // Tries each address of the host. Immediate if it is connected.
  Awaitable<Connected> Connect();
  // False if the connection is broken or Close was called.
  Awaitable<bool> Write(std::string_view bytes);
  // Waits for bytes and reads up to the size of `buffer`. 0: the server has closed the connection, it is broken, or
  // Close was called. `buffer` is not used while it waits, so that all connections of a loop can share one.
  Awaitable<size_t> Read(std::span<char> buffer);
  // Passes everything that arrives to `take`, whenever `poller` says so, and resumes the caller only at the end: when
  // `take` has returned false (the result is true), or as Read returns 0 (false). Throws what `take` throws, which
  // touches `touched`.
  using Touched = std::array<std::span<const std::byte>, 2>;
  Awaitable<bool> ReadPaced(UpstreamPoller* poller, std::span<char> buffer, const Touched& touched,
                            absl::FunctionRef<bool(std::string_view)> take);

  // Ends whatever is awaited, and the connection. Idempotent.
  void Close();
  // The connection is open, and the server has sent nothing that was not read.
  bool IsIdle() const;

 private:
  struct Lookup;
  // What ReadPaced waits for; in its frame.
  struct Paced {
    UpstreamPoller* poller = nullptr;
    std::span<char> buffer;
    absl::FunctionRef<bool(std::string_view)> take;
    Timer* done = nullptr;  // ends the wait
    bool closed = false;    // by the server: what it sent before may still be unread
    bool satisfied = false;
    std::exception_ptr error = nullptr;
  };
  enum class Got { kBytes, kNothing, kEnd };

  void OnReadable(bool closed) noexcept override;
  void Prefetch() const noexcept override;
  // Reads without waiting; `size` is that of kBytes.
  Got ReadNow(std::span<char> buffer, size_t* size);
  void EndPaced();
  int fd() const { return fd_ ? fd_.get() : const_cast<TcpSocket&>(socket_).native_handle(); }
  Awaitable<std::vector<Endpoint>> Resolve();
  Awaitable<bool> ConnectTo(Endpoint endpoint);
  Awaitable<bool> Handshake();
  Awaitable<bool> WaitFor(TcpSocket::wait_type what);
  // Waits for what the result of an SSL function asks for. False if it is an error.
  Awaitable<bool> WaitForTls(int result);

  net::io_context* const io_;
  UpstreamResolver* const resolver_;
  const UpstreamTarget* const target_;
  // Either one has the descriptor: Asio's reactor would wake the loop for each token, so that ReadPaced takes the
  // descriptor out of it. The next wait gives it back.
  TcpSocket socket_;
  base::UniqueFd fd_;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
  Timer* waiting_ = nullptr;                          // for the resolver
  Paced* paced_ = nullptr;                            // during ReadPaced
  Touched touched_;                                   // by paced_->take
  net::ip::tcp protocol_ = net::ip::tcp::v4();        // of the socket
  TcpSocket::wait_type wait_ = TcpSocket::wait_read;  // for what, after kNothing
  bool connected_ = false;
  bool closed_ = false;
  bool more_ = false;  // the last read may have left bytes, so the next one does not wait first
};

// The idle connections of one loop to one upstream, the last used first. Confined to the loop's thread.
class UpstreamConnectionPool {
 public:
  // Connections idle for `max_idle` are closed when one is taken or put back; at most `max_connections` are kept. All
  // pools share `idle_gauge`.
  UpstreamConnectionPool(size_t max_connections, absl::Duration max_idle, prometheus::Gauge* idle_gauge)
      : max_connections_(max_connections), max_idle_(absl::ToChronoNanoseconds(max_idle)), idle_gauge_(idle_gauge) {}
  ~UpstreamConnectionPool();
  UpstreamConnectionPool(UpstreamConnectionPool&&) = default;

  // Null if there is none that is usable.
  std::unique_ptr<UpstreamConnection> Take();
  void Put(std::unique_ptr<UpstreamConnection> connection);
  void CloseOld();

 private:
  struct Idle {
    std::unique_ptr<UpstreamConnection> connection;
    std::chrono::steady_clock::time_point since;
  };
  void SetGauge();

  const size_t max_connections_;
  const std::chrono::nanoseconds max_idle_;
  prometheus::Gauge* const idle_gauge_;
  std::vector<Idle> idle_;  // in the order of `since`
  size_t gauged_ = 0;       // of idle_, in the gauge
};

}  // namespace runnel::inference
