#include "services/inference/journal/redis/redis_socket.h"

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/ssl/error.hpp>

#include "absl/strings/str_cat.h"

namespace runnel::inference {
namespace {

namespace ssl = net::ssl;

absl::Status BadFile(absl::string_view flag, const std::string& file, absl::string_view expected) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": '", file, "' is not a readable PEM file of ", expected));
}

// Makes OpenSSL check the certificate's name, and ask for it (SNI).
void SetServerName(const std::string& host, SSL* ssl) {
  ErrorCode ec;
  net::ip::make_address(host, ec);
  if (!ec) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str());
  } else {
    // As SSL_set_tlsext_host_name, a macro with an old-style cast.
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, const_cast<char*>(host.c_str()));
    SSL_set1_host(ssl, host.c_str());
  }
}

std::string DescribeTlsError(const ErrorCode& error, SSL* ssl) {
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK) {
    return absl::StrCat("its certificate is not trusted: ", X509_verify_cert_error_string(verified));
  }
  if (error.category() == net::error::get_ssl_category() &&
      ERR_GET_REASON(static_cast<unsigned long>(error.value())) == SSL_R_WRONG_VERSION_NUMBER) {
    return "it does not reply in TLS: use redis://";
  }
  return absl::StrCat("TLS failed: ", error.message());
}

}  // namespace

absl::StatusOr<std::shared_ptr<ssl::context>> MakeTlsContext(const RedisOptions& options) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_client);
  SSL_CTX* tls = context->native_handle();
  SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
  SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, nullptr);
  if (options.ca_file.empty()) {
    SSL_CTX_set_default_verify_paths(tls);
  } else if (SSL_CTX_load_verify_locations(tls, options.ca_file.c_str(), nullptr) != 1) {
    return BadFile("--log_ca_file", options.ca_file, "certificate authorities");
  }
  if (options.cert_file.empty()) return context;
  if (SSL_CTX_use_certificate_chain_file(tls, options.cert_file.c_str()) != 1) {
    return BadFile("--log_cert_file", options.cert_file, "a certificate");
  }
  if (SSL_CTX_use_PrivateKey_file(tls, options.cert_key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(tls) != 1) {
    return BadFile("--log_cert_key_file", options.cert_key_file, "the key of --log_cert_file");
  }
  return context;
}

Awaitable<ErrorCode> RedisSocket::Connect(Endpoint endpoint, absl::Duration silence) {
  ErrorCode ignored;
  if (closed_) co_return net::error::operation_aborted;
  socket_.close(ignored);
  const auto [error] = co_await socket_.async_connect(endpoint, kAwait);
  if (error) co_return error;
  if (closed_) co_return net::error::operation_aborted;
  socket_.set_option(net::ip::tcp::no_delay(true), ignored);
  socket_.set_option(net::socket_base::keep_alive(true), ignored);
  const int seconds = static_cast<int>(std::clamp<int64_t>(absl::ToInt64Seconds(silence), 1, 3600));
  const int milliseconds = static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(silence), 100, 3'600'000));
  const int probes = 3;
  // Only detect what the timeouts of the client would find later.
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
  co_return ErrorCode();
}

Awaitable<ErrorCode> RedisSocket::Handshake(std::shared_ptr<ssl::context> context, std::string host) {
  context_ = std::move(context);
  tls_.emplace(socket_, *context_);
  SetServerName(host, tls_->native_handle());
  const auto [error] = co_await tls_->async_handshake(ssl::stream_base::client, kAwait);
  if (error) tls_error_ = DescribeTlsError(error, tls_->native_handle());
  co_return error;
}

Awaitable<std::pair<ErrorCode, size_t>> RedisSocket::Read(std::span<char> buffer) {
  const auto space = net::buffer(buffer.data(), buffer.size());
  if (tls_.has_value()) {
    const auto [error, size] = co_await tls_->async_read_some(space, kAwait);
    // With TLS 1.3 a server rejects a client's certificate after the handshake.
    if (error) tls_error_ = DescribeTlsError(error, tls_->native_handle());
    co_return std::pair(error, size);
  }
  const auto [error, size] = co_await socket_.async_read_some(space, kAwait);
  co_return std::pair(error, size);
}

Awaitable<ErrorCode> RedisSocket::WriteAll(std::span<const char> bytes) {
  const auto buffer = net::buffer(bytes.data(), bytes.size());
  if (tls_.has_value()) {
    const auto [error, size] = co_await net::async_write(*tls_, buffer, kAwait);
    co_return error;
  }
  const auto [error, size] = co_await net::async_write(socket_, buffer, kAwait);
  co_return error;
}

void RedisSocket::Close() {
  closed_ = true;
  ErrorCode ignored;
  socket_.close(ignored);
}

std::string RedisSocket::LocalAddress() const {
  ErrorCode ec;
  const Endpoint local = socket_.local_endpoint(ec);
  return ec ? "" : local.address().to_string();
}

RedisFailure::Reason ReasonOf(const ErrorCode& error) {
  if (error == net::error::connection_refused || error == net::error::host_unreachable ||
      error == net::error::network_unreachable || error == net::error::access_denied) {
    return RedisFailure::Reason::kRefused;
  }
  if (error == net::error::timed_out) return RedisFailure::Reason::kTimeout;
  if (error.category() == net::error::get_ssl_category()) return RedisFailure::Reason::kTls;
  return RedisFailure::Reason::kClosed;
}

}  // namespace runnel::inference
