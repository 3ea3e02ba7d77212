#include "services/inference/engines/upstream/response_parser.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <string_view>
#include <vector>

namespace runnel::inference {
namespace {

using State = UpstreamResponseParser::State;

class Recorder final : public UpstreamResponseParser::Handler {
 public:
  bool OnHead(const UpstreamHead& head) override {
    story += std::to_string(head.status) + " " + head.content_type + " " + head.retry_after + "|";
    return true;
  }
  bool OnBody(std::string_view bytes) override {
    story += bytes;
    return story.size() < max_bytes;
  }
  std::string story;
  size_t max_bytes = 1 << 20;
};

// Status, type, Retry-After, the body and the end of a response fed in pieces of `piece` bytes, then closed.
std::string Story(std::string_view bytes, size_t piece) {
  Recorder recorder;
  UpstreamResponseParser parser({}, &recorder);
  for (size_t at = 0; at < bytes.size(); at += piece) parser.Feed(bytes.substr(at, piece));
  const bool ended_before_close = parser.state() != State::kReading;
  const bool keep_alive = parser.state() == State::kDone && parser.keep_alive();
  parser.OnEof();
  switch (parser.state()) {
    case State::kDone:
      return recorder.story + "|done" + (keep_alive ? ", keep" : "") + (ended_before_close ? "" : ", by close");
    case State::kFailed:
      return recorder.story + "|failed: " + std::string(parser.error());
    default:
      return recorder.story + "|other";
  }
}

std::string Gzip(std::string_view text) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

struct Row {
  std::string response;
  std::string story;
};

void Check(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    for (const size_t piece : {size_t{1}, size_t{2}, size_t{7}, row.response.size()}) {
      EXPECT_EQ(Story(row.response, piece), row.story) << row.response.substr(0, 200) << " in pieces of " << piece;
    }
  }
}

TEST(UpstreamResponseParser, FindsTheEndOfEveryBody) {
  Check({
      {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5\r\n\r\nhello",
       "200 text/event-stream |hello|done, keep"},
      {"HTTP/1.1 200\r\ncontent-length:5\r\n\r\nhello", "200  |hello|done, keep"},
      {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "200  ||done, keep"},
      {"HTTP/1.1 204 No Content\r\n\r\n", "204  ||done, keep"},
      {"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\n-", "429  7|-|done, keep"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nX: y\r\n\r\n",
       "200  |hello world|done, keep"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n00A \r\n0123456789\r\n000\r\n\r\n",
       "200  |0123456789|done, keep"},
      {"HTTP/1.1 200 OK\r\n\r\nhello", "200  |hello|done, by close"},
      {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200  |hi|done"},
      {"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nhi", "200  |hi|done"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhimore", "200  |hi|done"},
      {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
       "1\r\n\r\n!",
       "200  |!|done, keep"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi", "200  |hi|done, keep"},
  });
}

TEST(UpstreamResponseParser, DecodesGzip) {
  const std::string text(100'000, 'a');
  const std::string body = Gzip(text);
  const std::string head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: ";
  Check({
      {head + std::to_string(body.size()) + "\r\n\r\n" + body, "200  |" + text + "|done, keep"},
      {head + "0\r\n\r\n", "200  ||done, keep"},
      {head + "5\r\n\r\nhello", "200  ||failed: its gzip coding is corrupt"},
      {head + "20\r\n\r\n" + body.substr(0, 20), "200  ||failed: its gzip coding is cut"},
      {head + std::to_string(body.size() + 1) + "\r\n\r\n" + body + "x",
       "200  |" + text + "|failed: its gzip coding is corrupt"},
      {"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n", "|failed: its content coding is not supported"},
      {"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n\r\n!", "200  |!|done, by close"},
  });
}

TEST(UpstreamResponseParser, StopsAGzipBomb) {
  const std::string body = Gzip(std::string(size_t{64} << 20, '\0'));
  Recorder recorder;
  UpstreamResponseParser parser({}, &recorder);
  parser.Feed("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + body);
  EXPECT_EQ(parser.state(), State::kUnwanted);
  EXPECT_LT(recorder.story.size(), recorder.max_bytes + (64 << 10));
}

TEST(UpstreamResponseParser, RejectsWhatIsNotHttp) {
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  Check({
      {"", "|failed: it closed the connection"},
      {"HTTP/1.1 20", "|failed: it closed the connection"},
      {"SSH-2.0-OpenSSH\r\n", "|failed: its status line is not HTTP/1"},
      {"HTTP/2 200\r\n", "|failed: its status line is not HTTP/1"},
      {"HTTP/1.1 2x0 OK\r\n", "|failed: its status line is not HTTP/1"},
      {"HTTP/1.1 2000\r\n", "|failed: its status line is not HTTP/1"},
      {"HTTP/1.1  200\r\n", "|failed: its status line is not HTTP/1"},
      {"HTTP/1.1 000 \r\n", "|failed: its status is not possible"},
      {"HTTP/1.1 999 \r\n", "|failed: its status is not possible"},
      {"HTTP/1.1 101 Switching\r\n", "|failed: its status is not possible"},
      {"HTTP/1.1 200 " + std::string(30'000, 'x') + "\r\n", "|failed: a line of its header is too long"},
      {std::string(9'000, 'x'), "|failed: a line of its header is too long"},
      {ok + "X: " + std::string(9'000, 'x'), "|failed: a line of its header is too long"},
      {ok + "no colon\r\n", "|failed: a header field is malformed"},
      {ok + " folded: x\r\n", "|failed: a header field is malformed"},
      {ok + "na me: x\r\n", "|failed: a header field is malformed"},
      {ok + ": x\r\n", "|failed: a header field is malformed"},
      {ok + std::string("X: \0\r\n", 6), "|failed: its header has a NUL"},
      {ok + "Content-Length: -1\r\n", "|failed: its content-length is malformed"},
      {ok + "Content-Length: 1x\r\n", "|failed: its content-length is malformed"},
      {ok + "Content-Length:\r\n", "|failed: its content-length is malformed"},
      {ok + "Content-Length: 99999999999999999999\r\n", "|failed: its content-length is malformed"},
      {ok + "Content-Length: 1\r\nContent-Length: 2\r\n", "|failed: its content-length is malformed"},
      {ok + "Transfer-Encoding: gzip, chunked\r\n", "|failed: its transfer coding is not supported"},
      {ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
       "|failed: its transfer coding is not supported"},
      {ok + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "|failed: its length is ambiguous"},
      {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "|failed: its length is ambiguous"},
      {ok + "Content-Length: 5\r\n\r\nhell", "200  |hell|failed: it closed the connection"},
      {ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n", "200  ||failed: a chunk has no size"},
      {ok + "Transfer-Encoding: chunked\r\n\r\n\r\n", "200  ||failed: a chunk has no size"},
      {ok + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", "200  ||failed: a chunk has no size"},
      {ok + "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", "200  ||failed: a chunk has no size"},
      {ok + "Transfer-Encoding: chunked\r\n\r\n00000000000000001\r\n", "200  ||failed: a chunk has no size"},
      {ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "200  |ab|failed: a chunk is longer than its size"},
      {ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", "200  |ab|failed: it closed the connection"},
      {ok + "Transfer-Encoding: chunked\r\n\r\n0\r\n", "200  ||failed: it closed the connection"},
  });
}

TEST(UpstreamResponseParser, BoundsHeadersInterimResponsesAndTrailers) {
  std::string many = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 129; ++i) many += "X-" + std::to_string(i) + ": y\r\n";
  std::string interim;
  for (int i = 0; i < 2'000; ++i) interim += "HTTP/1.1 100 Continue\r\n\r\n";
  const std::string wide = "X: " + std::string(4'000, 'y') + "\r\n";
  std::string trailers = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
  for (int i = 0; i < 9; ++i) trailers += wide;
  std::string headers = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 9; ++i) headers += wide;
  Check({
      {many, "|failed: it has too many header fields"},
      {interim, "|failed: its header is too long"},
      {headers, "|failed: its header is too long"},
      {trailers, "200  ||failed: its header is too long"},
  });
}

TEST(UpstreamResponseParser, DoesNotBoundAStreamOfManyChunks) {
  std::string response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 50'000; ++i) response += "1\r\nx\r\n";
  response += "0\r\n\r\n";
  EXPECT_EQ(Story(response, 1000), "200  |" + std::string(50'000, 'x') + "|done, keep");
}

TEST(UpstreamResponseParser, StopsWhenTheRestIsNotWanted) {
  Recorder recorder;
  recorder.max_bytes = 1;
  UpstreamResponseParser parser({}, &recorder);
  EXPECT_EQ(parser.Feed("HTTP/1.1 200 OK\r\n\r\nhello"), State::kUnwanted);
  const std::string story = recorder.story;
  parser.Feed("more");
  EXPECT_EQ(recorder.story, story);
}

}  // namespace
}  // namespace runnel::inference
