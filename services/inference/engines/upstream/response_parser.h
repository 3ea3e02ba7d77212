#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace runnel::inference {

class GzipInflater;

// The head of a response; header values are empty if absent.
struct UpstreamHead {
  int status = 0;
  std::string content_type;
  std::string retry_after;
};

// Parses one HTTP/1 response from untrusted bytes. Does no IO; the result does not depend on how the bytes are split.
// Interim responses (1xx) are skipped. A body with Content-Encoding gzip is decoded although identity is requested; any
// other coding fails. Never throws. Not thread-safe.
class UpstreamResponseParser {
 public:
  struct Limits {
    size_t max_line_bytes = 8 << 10;     // of the status line, a header field or a chunk's size
    size_t max_header_bytes = 32 << 10;  // of all lines outside the body together, interim responses included
    size_t max_headers = 128;
  };

  class Handler {
   public:
    virtual ~Handler() = default;
    // The head of the final response, once. False: the response is not wanted.
    virtual bool OnHead(const UpstreamHead& head) = 0;
    // The next bytes of the decoded body, valid during the call. False: the rest is not wanted.
    virtual bool OnBody(std::string_view bytes) = 0;
  };

  enum class State {
    kReading,
    kDone,      // the response is complete
    kUnwanted,  // the handler returned false
    kFailed,    // not HTTP, above a limit, or cut; see error()
  };

  // `handler` must outlive it.
  UpstreamResponseParser(const Limits& limits, Handler* handler);
  ~UpstreamResponseParser();

  // Consumes all bytes. Those after the end of the response make the connection unusable.
  State Feed(std::string_view bytes);
  // The server has closed the connection.
  State OnEof();

  State state() const { return state_; }
  // What was wrong, for people; contains no byte of the response.
  std::string_view error() const { return error_; }
  // 0 before the head.
  int status() const { return head_.status; }
  // Any byte of a response has arrived.
  bool begun() const { return begun_; }
  // Another request may follow on the connection. Requires kDone.
  bool keep_alive() const { return keep_alive_ && !excess_; }

 private:
  enum class Step { kStatusLine, kHeaders, kLength, kUntilClose, kChunkSize, kChunkData, kChunkEnd, kTrailers };

  void TakeLine(std::string_view line);
  void TakeStatusLine(std::string_view line);
  void TakeHeader(std::string_view line);
  void TakeField(std::string_view name, std::string_view value);
  void TakeContentLength(std::string_view value);
  void TakeChunkSize(std::string_view line);
  void EndHeaders();
  void Body(std::string_view bytes);
  void Finish();
  void Fail(std::string_view error);
  void ResetHead();

  const Limits limits_;
  Handler* const handler_;
  State state_ = State::kReading;
  Step step_ = Step::kStatusLine;
  std::string line_;  // the beginning of an incomplete line
  size_t header_bytes_ = 0;
  size_t headers_ = 0;
  uint64_t remaining_ = 0;  // of the body, or of the chunk
  UpstreamHead head_;
  bool begun_ = false;
  bool http_1_0_ = false;
  bool keep_alive_ = true;
  bool closes_ = false;
  bool chunked_ = false;
  bool has_length_ = false;
  bool gzip_ = false;
  bool excess_ = false;
  std::unique_ptr<GzipInflater> inflater_;
  std::string_view error_;
};

}  // namespace runnel::inference
