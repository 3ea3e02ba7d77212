#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace runnel::testing {

// A blocking WebSocket client for tests. Every call ends within the timeout of the options, with DeadlineExceeded. One
// thread at a time.
class WsClient {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    int port = 0;
    std::string target = "/v1/ws";
    // Value of Sec-WebSocket-Protocol; empty: none is offered.
    std::string protocols;
    // Additional headers of the upgrade, for example Origin.
    std::map<std::string, std::string> headers;
    std::chrono::milliseconds timeout{10'000};
    // SO_RCVBUF; 0: the system's default. With a small buffer a reader becomes slow sooner.
    int receive_buffer_bytes = 0;
  };

  // The server's response to the upgrade.
  struct Upgrade {
    int status = 0;
    std::string body;
    std::map<std::string, std::string> headers;  // Names in lower case.
  };

  struct Message {
    std::string bytes;
    bool binary = false;
  };

  // Connects and upgrades. On an error `upgrade`, unless null, has the server's response, with status 0 if there was
  // none.
  static absl::StatusOr<std::unique_ptr<WsClient>> Connect(const Options& options, Upgrade* upgrade = nullptr);
  ~WsClient();

  absl::Status SendText(std::string_view bytes);
  absl::Status SendBinary(std::string_view bytes);
  // Sends bytes unchanged, for frames that a well-behaved client never sends.
  absl::Status SendRaw(std::string_view bytes);
  absl::Status SendPing(std::string_view payload);

  // Returns the next message and replies to pings before it. Cancelled once the server has closed, see close_code();
  // Unavailable if the connection ended without a close frame.
  absl::StatusOr<Message> Read();
  // Reads until the connection ends and returns its close code, or 0 if there was none.
  int ReadUntilClosed();

  int close_code() const;
  std::string close_reason() const;
  // Control frames received while reading.
  int pings_received() const;
  std::string last_pong() const;

  // Performs the closing handshake.
  absl::Status Close(uint16_t code);
  // Closes the socket without a close frame.
  void Abort();

 private:
  struct Impl;
  explicit WsClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::testing
