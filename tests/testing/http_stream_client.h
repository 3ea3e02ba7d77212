#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace runnel::testing {

// A blocking HTTP/1.1 client that sends the bytes it is told to and shows the ones it gets, for tests of what is on the
// wire. Every call ends within 10 s, with DeadlineExceeded. One thread at a time.
class HttpStreamClient {
 public:
  struct Head {
    int status = 0;
    std::map<std::string, std::string> headers;  // names in lower case
    std::string bytes;                           // as they came, with the empty line
  };
  struct Response {
    Head head;
    std::string body;
    // A chunked body ended by its final chunk, or one with a length that came whole.
    bool complete = false;
  };

  // `receive_buffer_bytes` is SO_RCVBUF, 0 the system's: a small one makes a reader slow soon.
  static absl::StatusOr<std::unique_ptr<HttpStreamClient>> Connect(int port, int receive_buffer_bytes = 0);
  ~HttpStreamClient();

  absl::Status Send(std::string_view bytes);
  // A request with Host, the given header lines (each ended by \r\n) and, if there is one, a JSON body.
  absl::Status Request(std::string_view method, std::string_view target, std::string_view headers = "",
                       std::string_view body = "");

  absl::StatusOr<Head> ReadHead();
  // The next chunk's content; empty for the final chunk. Unavailable if the connection ended before it.
  absl::StatusOr<std::string> ReadChunk();
  // Joins chunks until the text contains `needle`.
  absl::StatusOr<std::string> ReadUntil(std::string_view needle);
  // Head and body, whichever way the body is framed; a cut one is no error but is not complete.
  absl::StatusOr<Response> ReadResponse();
  absl::StatusOr<Response> ReadResponseTo(std::string_view method);
  // True if the peer ends the connection, whatever it sends before.
  bool ReadUntilClosed();

  // Sends FIN, and goes on reading.
  void ShutdownSend();
  // Ends the connection with a reset.
  void Reset();

 private:
  explicit HttpStreamClient(int fd) : fd_(fd) {}
  // More bytes into buffer_. Unavailable at the end of the connection.
  absl::Status Fill();
  absl::StatusOr<std::string> ReadLine();
  absl::StatusOr<std::string> ReadBytes(size_t count);

  int fd_;
  std::string buffer_;
};

}  // namespace runnel::testing
