#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace runnel::base {

struct HttpLimits {
  // Request line, header fields, trailers and chunk extensions together.
  size_t max_header_bytes = 16 << 10;
  size_t max_target_bytes = 8 << 10;
  size_t max_headers = 128;
  size_t max_body_bytes = 1 << 20;
};

// The checked head of a request: its framing is unambiguous and it names one host.
struct HttpHead {
  std::string method;
  // As sent, but in origin form: `/path` for `http://host/path`, whose host is then in the Host field.
  std::string target;
  bool http_1_0 = false;
  bool keep_alive = true;
  bool expects_continue = false;  // the client waits for "100 Continue" before it sends the body; never with HTTP/1.0
  bool has_body = false;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case, in the order sent

  // The first field with that name, or empty.
  std::string_view Header(std::string_view lower_case_name) const;
  size_t Count(std::string_view lower_case_name) const;
  // The values of all fields with that name, joined by ", ", as RFC 9110, 5.3 defines for fields with a list.
  std::string HeaderList(std::string_view lower_case_name) const;
};

// The response to a malformed request. The connection must be closed after it, because it is unknown where the next
// request begins.
struct HttpParseError {
  int status = 0;  // 400, 413, 414, 415, 417, 431 or 501
  std::string message;
};

// Parses one HTTP/1 request from untrusted bytes. Does no IO; the result does not depend on how the bytes are split.
// Never throws. Not thread-safe.
//
// Stricter than most parsers wherever two of them could disagree about the end of a request (RFC 9112, 11.2): a line
// ends with CRLF only, Transfer-Encoding is exactly `chunked` and excludes a Content-Length, HTTP/1.1 has exactly one
// well-formed Host. The host of a target in absolute form replaces the one in the Host field (RFC 9112, 3.2.2).
class HttpParser {
 public:
  enum class State { kHead, kBody, kDone, kFailed };

  explicit HttpParser(const HttpLimits& limits) : limits_(limits) {}

  // Consumes bytes of the request from the front of `bytes` and returns their number; the rest is the next request.
  // Stops when the head is complete, so that it can be checked before the body is read: call it again to continue.
  size_t Feed(std::string_view bytes);

  State state() const { return state_; }
  // False while only empty lines have arrived, which are ignored before a request line.
  bool started() const { return state_ != State::kHead || !head_bytes_.empty(); }
  // Once the head is complete.
  const HttpHead& head() const { return head_; }
  HttpHead TakeHead() { return std::move(head_); }
  // Once the state is kDone.
  std::string TakeBody() { return std::move(body_); }
  // Once the state is kFailed.
  const HttpParseError& error() const { return error_; }
  // The memory of the request. At most what the limits allow, plus one growth of a string.
  size_t buffered() const {
    return (head_bytes_.empty() ? 0 : head_bytes_.capacity()) + parsed_head_bytes_ +
           (body_.empty() ? 0 : body_.capacity());
  }

 private:
  // The part of a chunked body that the next byte belongs to.
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
