#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace runnel::bridge {

namespace net = boost::asio;

// The concrete executor of one io thread: the type-erased one costs an allocation and an indirect call per operation.
using Executor = net::io_context::executor_type;
using Socket = net::basic_stream_socket<net::ip::tcp, Executor>;
using ErrorCode = boost::system::error_code;

template <typename T>
using Awaitable = net::awaitable<T, Executor>;

// co_await socket.async_x(..., kAwait) returns a tuple that begins with an ErrorCode, and never throws.
inline constexpr net::as_tuple_t<net::use_awaitable_t<Executor>> kAwait{};

}  // namespace runnel::bridge
