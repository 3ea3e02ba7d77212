#pragma once

#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/journal/redis/redis_failure.h"
#include "services/inference/journal/redis/redis_net.h"
#include "services/inference/journal/redis/redis_options.h"

namespace runnel::inference {

// Reads the files of the options for TLS. InvalidArgument names the file that cannot be used.
absl::StatusOr<std::shared_ptr<net::ssl::context>> MakeTlsContext(const RedisOptions& options);

// A TCP connection, over TLS or not. Confined to the loop's thread; one read and one write at a time.
class RedisSocket {
 public:
  explicit RedisSocket(net::io_context* io) : socket_(*io) {}
  RedisSocket(const RedisSocket&) = delete;
  RedisSocket& operator=(const RedisSocket&) = delete;

  // A connection whose data is not acknowledged for `silence` ends.
  Awaitable<ErrorCode> Connect(Endpoint endpoint, absl::Duration silence);
  // `host` is the name or address that the certificate has to be made out to. If it fails, tls_error() says why.
  Awaitable<ErrorCode> Handshake(std::shared_ptr<net::ssl::context> context, std::string host);
  const std::string& tls_error() const { return tls_error_; }

  // Reads what there is, at least one byte.
  Awaitable<std::pair<ErrorCode, size_t>> Read(std::span<char> buffer);
  // `handler(ErrorCode, size_t)` is called once all bytes are written, or the connection is broken.
  template <typename Handler>
  void Write(std::span<const char> bytes, Handler handler) {
    const auto buffer = net::buffer(bytes.data(), bytes.size());
    if (tls_.has_value()) {
      net::async_write(*tls_, buffer, std::move(handler));
    } else {
      net::async_write(socket_, buffer, std::move(handler));
    }
  }
  Awaitable<ErrorCode> WriteAll(std::span<const char> bytes);

  // Ends whatever is awaited. Idempotent.
  void Close();
  bool closed() const { return closed_; }
  // Addresses; empty if it is not connected.
  std::string LocalAddress() const;

 private:
  TcpSocket socket_;
  std::shared_ptr<net::ssl::context> context_;
  std::optional<net::ssl::stream<TcpSocket&>> tls_;
  std::string tls_error_;
  bool closed_ = false;
};

// What an error of a connection means, and its text.
RedisFailure::Reason ReasonOf(const ErrorCode& error);

}  // namespace runnel::inference
