#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>

// Asio with the concrete executor of one event loop, as in bridges/base/net.h. For .cc files and internal headers.
namespace runnel::inference {

namespace net = boost::asio;

using Executor = net::io_context::executor_type;
using TcpSocket = net::basic_stream_socket<net::ip::tcp, Executor>;
using Endpoint = net::ip::tcp::endpoint;
using ErrorCode = boost::system::error_code;
using SteadyClock = std::chrono::steady_clock;
using Timer = net::basic_waitable_timer<SteadyClock, net::wait_traits<SteadyClock>, Executor>;

template <typename T>
using Awaitable = net::awaitable<T, Executor>;

// co_await x.async_y(..., kAwait) returns a tuple that begins with an ErrorCode, and never throws.
inline constexpr net::as_tuple_t<net::use_awaitable_t<Executor>> kAwait{};

}  // namespace runnel::inference
