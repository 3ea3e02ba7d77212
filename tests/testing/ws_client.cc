#include "tests/testing/ws_client.h"

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"

namespace runnel::testing {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;

}  // namespace

struct WsClient::Impl {
  explicit Impl(const Options& opts) : options(opts), stream(context) {}

  // Runs one operation to its end: `start` gets the handler to call with the error.
  template <class Start>
  absl::Status Run(Start start) {
    std::optional<error_code> result;
    context.restart();
    start([&result](error_code ec, auto&&...) { result = ec; });
    const auto deadline = std::chrono::steady_clock::now() + options.timeout;
    while (!result && context.run_one_until(deadline) > 0) {
    }
    if (!result) {
      stream.next_layer().close();
      context.restart();
      context.run();
      return absl::DeadlineExceededError("the server was too slow");
    }
    if (!*result) return absl::OkStatus();
    if (*result == websocket::error::closed) return absl::CancelledError("closed");
    return absl::UnavailableError(result->message());
  }

  absl::Status Handshake(Upgrade* upgrade);

  Options options;
  net::io_context context{1};
  websocket::stream<net::ip::tcp::socket> stream;
  beast::flat_buffer buffer;
  int pings = 0;
  std::string pong;
};

absl::Status WsClient::Impl::Handshake(Upgrade* upgrade) {
  stream.set_option(websocket::stream_base::decorator([this](websocket::request_type& request) {
    if (!options.protocols.empty()) request.set("Sec-WebSocket-Protocol", options.protocols);
    for (const auto& [name, value] : options.headers) request.set(name, value);
  }));
  websocket::response_type response;
  const absl::Status status = Run([&](auto handler) {
    stream.async_handshake(response, options.host + ":" + std::to_string(options.port), options.target,
                           std::move(handler));
  });
  if (upgrade != nullptr) {
    upgrade->status = status.ok() || response.result_int() != 200 ? static_cast<int>(response.result_int()) : 0;
    upgrade->body = response.body();
    for (const auto& field : response) {
      upgrade->headers[absl::AsciiStrToLower(std::string(field.name_string()))] = std::string(field.value());
    }
  }
  return status;
}

WsClient::WsClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WsClient::~WsClient() = default;

absl::StatusOr<std::unique_ptr<WsClient>> WsClient::Connect(const Options& options, Upgrade* upgrade) {
  auto impl = std::make_unique<Impl>(options);
  auto& socket = impl->stream.next_layer();
  const net::ip::tcp::endpoint endpoint(net::ip::make_address(options.host), static_cast<uint16_t>(options.port));
  error_code ec;
  socket.open(endpoint.protocol(), ec);
  if (!ec && options.receive_buffer_bytes > 0) {
    socket.set_option(net::socket_base::receive_buffer_size(options.receive_buffer_bytes), ec);
  }
  if (ec) return absl::UnavailableError(ec.message());
  absl::Status status = impl->Run([&](auto handler) { socket.async_connect(endpoint, std::move(handler)); });
  if (!status.ok()) return status;
  socket.set_option(net::ip::tcp::no_delay(true), ec);
  impl->stream.read_message_max(64 << 20);
  impl->stream.auto_fragment(false);
  impl->stream.control_callback([client = impl.get()](websocket::frame_type type, beast::string_view payload) {
    if (type == websocket::frame_type::ping) client->pings++;
    if (type == websocket::frame_type::pong) client->pong = std::string(payload);
  });
  status = impl->Handshake(upgrade);
  if (!status.ok()) return status;
  return std::unique_ptr<WsClient>(new WsClient(std::move(impl)));
}

absl::Status WsClient::SendText(std::string_view bytes) {
  impl_->stream.text(true);
  return impl_->Run([&](auto handler) { impl_->stream.async_write(net::buffer(bytes), std::move(handler)); });
}

absl::Status WsClient::SendBinary(std::string_view bytes) {
  impl_->stream.binary(true);
  return impl_->Run([&](auto handler) { impl_->stream.async_write(net::buffer(bytes), std::move(handler)); });
}

absl::Status WsClient::SendRaw(std::string_view bytes) {
  return impl_->Run(
      [&](auto handler) { net::async_write(impl_->stream.next_layer(), net::buffer(bytes), std::move(handler)); });
}

absl::Status WsClient::SendPing(std::string_view payload) {
  const websocket::ping_data data(payload.data(), payload.size());
  return impl_->Run([&](auto handler) { impl_->stream.async_ping(data, std::move(handler)); });
}

absl::StatusOr<WsClient::Message> WsClient::Read() {
  impl_->buffer.clear();
  const absl::Status status =
      impl_->Run([&](auto handler) { impl_->stream.async_read(impl_->buffer, std::move(handler)); });
  if (!status.ok()) return status;
  return Message{beast::buffers_to_string(impl_->buffer.data()), impl_->stream.got_binary()};
}

int WsClient::ReadUntilClosed() {
  while (Read().ok()) {
  }
  return close_code();
}

int WsClient::close_code() const { return static_cast<int>(impl_->stream.reason().code); }
std::string WsClient::close_reason() const { return std::string(impl_->stream.reason().reason.c_str()); }
int WsClient::pings_received() const { return impl_->pings; }
std::string WsClient::last_pong() const { return impl_->pong; }

absl::Status WsClient::Close(uint16_t code) {
  return impl_->Run([&](auto handler) { impl_->stream.async_close(code, std::move(handler)); });
}

void WsClient::Abort() {
  error_code ec;
  impl_->stream.next_layer().set_option(net::socket_base::linger(true, 0), ec);
  impl_->stream.next_layer().close(ec);
}

}  // namespace runnel::testing
