#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace runnel::testing {

// A blocking HTTP/1.1 client that sends given bytes and returns the bytes it receives, for tests of the wire format.
// Every call fails with DeadlineExceeded after 10 s. One thread at a time.
class HttpStreamClient {
 public:
  struct Head {
    int status = 0;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string bytes;                           // as received, including the empty line
  };
  struct Response {
    Head head;
    std::string body;
    // True if a chunked body ended with its final chunk, or a body with a length has that length.
    bool complete = false;
  };

  // `receive_buffer_bytes` is SO_RCVBUF; 0: the system's default. With a small buffer a reader becomes slow sooner.
  static absl::StatusOr<std::unique_ptr<HttpStreamClient>> Connect(int port, int receive_buffer_bytes = 0);
  ~HttpStreamClient();

  absl::Status Send(std::string_view bytes);
  // Sends a request with Host, the given header lines (each ended by \r\n) and the JSON body unless it is empty.
  absl::Status Request(std::string_view method, std::string_view target, std::string_view headers = "",
                       std::string_view body = "");

  absl::StatusOr<Head> ReadHead();
  // Returns the next chunk's content; empty for the final chunk. Unavailable if the connection ended before the chunk.
  absl::StatusOr<std::string> ReadChunk();
  // Reads chunks until their text contains `needle`, and returns the text.
  absl::StatusOr<std::string> ReadUntil(std::string_view needle);
  // Reads head and body, whichever way the body is framed. A body that is cut is not an error, but `complete` is false.
  absl::StatusOr<Response> ReadResponse();
  absl::StatusOr<Response> ReadResponseTo(std::string_view method);
  // Discards bytes until the peer closes the connection; true if it does.
  bool ReadUntilClosed();

  // Sends FIN; reading is still possible.
  void ShutdownSend();
  // Ends the connection with a reset.
  void Reset();

 private:
  explicit HttpStreamClient(int fd) : fd_(fd) {}
  // Reads more bytes into buffer_. Unavailable at the end of the connection.
  absl::Status Fill();
  absl::StatusOr<std::string> ReadLine();
  absl::StatusOr<std::string> ReadBytes(size_t count);

  int fd_;
  std::string buffer_;
};

}  // namespace runnel::testing
