#include "bridges/websocket/coalescing_socket.h"

#include <gtest/gtest.h>

#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace runnel::websocket {
namespace {

namespace net = boost::asio;
using net::ip::tcp;

// Two ends of a loopback connection on one io_context; the test reads from the far end.
class CoalescingSocketTest : public ::testing::Test {
 protected:
  CoalescingSocketTest() {
    tcp::acceptor acceptor(context_, {net::ip::address_v4::loopback(), 0});
    far_.open(tcp::v4());
    far_.set_option(net::socket_base::receive_buffer_size(8 * 1024));
    far_.connect(acceptor.local_endpoint());
    CoalescingSocket::Socket near(context_);
    acceptor.accept(near);
    near.set_option(net::socket_base::send_buffer_size(8 * 1024));
    socket_ = std::make_shared<CoalescingSocket>(std::move(near));
    socket_->SetOwner(socket_, [this] { progress_++; });
  }

  void Write(std::string_view text) {
    boost::system::error_code ec;
    socket_->write_some(net::buffer(text), ec);
    EXPECT_FALSE(ec);
  }

  // Runs handlers until `condition` holds or 10 s have passed.
  void RunUntil(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition() && std::chrono::steady_clock::now() < deadline) {
      context_.restart();
      context_.run_one_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(condition());
  }

  std::string ReadFar(size_t bytes) {
    std::string text(bytes, '\0');
    size_t got = 0;
    RunUntil([&] {
      boost::system::error_code ec;
      far_.non_blocking(true);
      if (got < bytes) got += far_.read_some(net::buffer(text.data() + got, bytes - got), ec);
      return got == bytes;
    });
    return text;
  }

  net::io_context context_{1};
  tcp::socket far_{context_};
  std::shared_ptr<CoalescingSocket> socket_;
  int progress_ = 0;
};

TEST_F(CoalescingSocketTest, SendsNothingBeforeFlushAndAllOfItThen) {
  Write("one ");
  Write("two ");
  Write("three");
  EXPECT_EQ(far_.available(), 0u);
  EXPECT_EQ(socket_->pending(), 13u);
  socket_->Flush();
  EXPECT_EQ(socket_->pending(), 0u);
  EXPECT_EQ(ReadFar(13), "one two three");
}

TEST_F(CoalescingSocketTest, AppendsAMessageAsOneFrame) {
  const struct {
    size_t bytes;
    std::string head;
  } rows[] = {
      {0, std::string("\x81\x00", 2)},
      {1, "\x81\x01"},
      {125, "\x81\x7d"},
      {126, std::string("\x81\x7e\x00\x7e", 4)},
      {0xffff, "\x81\x7e\xff\xff"},
      {0x10000, std::string("\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 10)},
  };
  for (const auto& row : rows) {
    const std::string payload(row.bytes, 'x');
    socket_->AppendMessage(/*text=*/true, payload);
    EXPECT_EQ(socket_->pending(), row.head.size() + row.bytes);
    socket_->Flush();
    EXPECT_EQ(ReadFar(row.head.size() + row.bytes), row.head + payload) << row.bytes;
  }
  socket_->AppendMessage(/*text=*/false, "ab");
  socket_->Flush();
  EXPECT_EQ(ReadFar(4),
            "\x82\x02"
            "ab");
}

TEST_F(CoalescingSocketTest, KnowsWhenACloseFrameWasWritten) {
  Write("HTTP/1.1 101 Switching Protocols\r\n\r\n");
  socket_->AppendMessage(/*text=*/true, std::string(3, '\x88'));
  Write(std::string_view("\x8a\x00", 2));  // a pong
  EXPECT_FALSE(socket_->close_sent());
  Write(std::string_view("\x88\x02\x03\xe8", 4));
  EXPECT_TRUE(socket_->close_sent());
}

TEST_F(CoalescingSocketTest, AClosedSocketCountsAsClosedByAFrame) {
  socket_->Close();
  EXPECT_TRUE(socket_->close_sent());
}

TEST_F(CoalescingSocketTest, KeepsTheOrderAcrossASlowReader) {
  std::string want;
  for (int i = 0; i < 20'000; i++) {
    const std::string part = "part " + std::to_string(i) + "\n";
    want += part;
    Write(part);
    if (i % 100 == 0) socket_->Flush();
  }
  socket_->Flush();
  EXPECT_GT(socket_->pending(), 0u);
  EXPECT_EQ(ReadFar(want.size()), want);
  RunUntil([&] { return socket_->pending() == 0; });
  EXPECT_GT(progress_, 0);
}

TEST_F(CoalescingSocketTest, AnAsynchronousWriteWaitsForRoomAboveTheLimit) {
  const std::string much(CoalescingSocket::kMaxPending + 256 * 1024, 'x');
  std::optional<size_t> written;
  net::async_write(*socket_, net::buffer(much), net::transfer_at_least(much.size()),
                   [&](boost::system::error_code ec, size_t bytes) {
                     EXPECT_FALSE(ec);
                     written = bytes;
                   });
  context_.restart();
  context_.poll();
  EXPECT_FALSE(written.has_value());
  EXPECT_LE(socket_->pending(), CoalescingSocket::kMaxPending + 64 * 1024);
  EXPECT_EQ(ReadFar(much.size()), much);
  RunUntil([&] { return written.has_value(); });
  EXPECT_EQ(*written, much.size());
}

TEST_F(CoalescingSocketTest, ReadsTheBytesOfTheRequestFirst) {
  socket_->SetReadAhead("abc");
  net::write(far_, net::buffer("def", 3));
  std::string text;
  char chunk[2];
  std::function<void()> read = [&] {
    socket_->async_read_some(net::buffer(chunk), [&](boost::system::error_code ec, size_t bytes) {
      ASSERT_FALSE(ec);
      text.append(chunk, bytes);
      if (text.size() < 6) read();
    });
  };
  read();
  RunUntil([&] { return text.size() == 6; });
  EXPECT_EQ(text, "abcdef");
}

TEST_F(CoalescingSocketTest, CloseEndsAWaitingWrite) {
  const std::string much(4 * CoalescingSocket::kMaxPending, 'x');
  boost::system::error_code result;
  net::async_write(*socket_, net::buffer(much), [&](boost::system::error_code ec, size_t) { result = ec; });
  context_.restart();
  context_.poll();
  EXPECT_FALSE(result);
  socket_->Close();
  RunUntil([&] { return result == net::error::operation_aborted || result == net::error::broken_pipe; });
  EXPECT_EQ(socket_->pending(), 0u);
}

TEST_F(CoalescingSocketTest, AFailedSendEndsThePendingRead) {
  char chunk[16];
  boost::system::error_code result;
  socket_->async_read_some(net::buffer(chunk), [&](boost::system::error_code ec, size_t) { result = ec; });
  far_.set_option(net::socket_base::linger(true, 0));
  far_.close();
  RunUntil([&] {
    boost::system::error_code ignored;
    socket_->write_some(net::buffer("x", 1), ignored);
    socket_->Flush();
    return bool(result);
  });
}

}  // namespace
}  // namespace runnel::websocket
