#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::base {

struct HttpLimits {
  // Of the request line, the header fields, the trailers and the extensions of chunks together.
  size_t max_header_bytes = 16 << 10;
  size_t max_target_bytes = 8 << 10;
  size_t max_headers = 128;
  size_t max_body_bytes = 1 << 20;
};

// The head of a request, already checked: its framing is unambiguous and it names one host.
struct HttpHead {
  std::string method;
  // As sent, but in origin form: of `http://host/path` only `/path`, as the host is in the Host field then.
  std::string target;
  bool http_1_0 = false;
  bool keep_alive = true;
  bool expects_continue = false;  // the client waits for "100 Continue" before it sends the body; never with HTTP/1.0
  bool has_body = false;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case, in the order sent

  // The first of that name, or empty.
  std::string_view Header(std::string_view lower_case_name) const;
  size_t Count(std::string_view lower_case_name) const;
  // The values of all fields of that name, joined by ", ": what a field that holds a list means (RFC 9110, 5.3).
  std::string HeaderList(std::string_view lower_case_name) const;
};

// The answer to a request that was not understood. The connection must be closed after it: where the next request
// begins is not known.
struct HttpParseError {
  int status = 0;  // 400, 413, 414, 415, 417, 431 or 501
  std::string message;
};

// Parses one HTTP/1 request out of bytes from anyone. Does no IO; the result does not depend on how the bytes were
// split. Never throws. Not thread-safe.
//
// Stricter than most parsers where two of them could disagree about where a request ends (RFC 9112, 11.2): a line ends
// with CRLF only, Transfer-Encoding is exactly `chunked` and never beside a Content-Length, HTTP/1.1 has exactly one
// well-formed Host. In the absolute form of the target its host replaces the one of the Host field (RFC 9112, 3.2.2).
class HttpParser {
 public:
  enum class State { kHead, kBody, kDone, kFailed };

  explicit HttpParser(const HttpLimits& limits) : limits_(limits) {}

  // Consumes bytes of the request from the front of `bytes` and returns how many; those behind it are the next request.
  // Stops when the head is complete, so that it can be checked before a body is read: call again to go on.
  size_t Feed(std::string_view bytes);

  State state() const { return state_; }
  // False as long as only empty lines came, which are ignored before a request line.
  bool started() const { return state_ != State::kHead || !head_bytes_.empty(); }
  // Once the head is complete.
  const HttpHead& head() const { return head_; }
  HttpHead TakeHead() { return std::move(head_); }
  // Once the state is kDone.
  std::string TakeBody() { return std::move(body_); }
  // Once the state is kFailed.
  const HttpParseError& error() const { return error_; }
  // The memory that the request holds now. Never more than the limits allow, plus one growth of a string.
  size_t buffered() const {
    return (head_bytes_.empty() ? 0 : head_bytes_.capacity()) + parsed_head_bytes_ +
           (body_.empty() ? 0 : body_.capacity());
  }

 private:
  // Of a body in chunks: what the next byte belongs to.
  enum class Chunk {
    kSize,
    kBeforeExtension,
    kExtension,
    kSizeEnd,
    kData,
    kDataCr,
    kDataEnd,
    kTrailer,
    kTrailerName,
    kTrailerValue,
    kTrailerEnd,
    kEnd,
  };

  bool Fail(int status, std::string_view message);
  size_t FeedHead(std::string_view bytes);
  bool SkipEmptyLines(std::string_view bytes, size_t* used);
  bool FinishLine();
  void FinishHead();
  bool ParseHead();
  bool ReadFraming();
  bool ReadTransferCoding(const std::string& coding);
  bool ReadTarget();
  bool ReadHost(std::string_view authority_of_target);
  size_t FeedBody(std::string_view bytes);
  void AppendToBody(std::string_view bytes);
  size_t FeedChunks(std::string_view bytes);
  bool FeedChunkByte(char c);
  bool FeedSizeByte(char c);
  bool FeedTrailerByte(char c);
  bool CountOverhead();

  const HttpLimits limits_;
  State state_ = State::kHead;
  HttpHead head_;
  HttpParseError error_;

  std::string head_bytes_;  // as sent; empty again once parsed
  size_t line_begin_ = 0;
  size_t empty_bytes_ = 0;
  bool empty_line_cr_ = false;
  size_t parsed_head_bytes_ = 0;

  std::string body_;
  bool chunked_ = false;
  uint64_t remaining_ = 0;  // of the body, or of the chunk
  Chunk chunk_ = Chunk::kSize;
  size_t size_digits_ = 0;
  size_t overhead_ = 0;  // counts against max_header_bytes
};

}  // namespace runnel::base
