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
    // Further headers of the upgrade, such as Origin.
    std::map<std::string, std::string> headers;
    std::chrono::milliseconds timeout{10'000};
    // SO_RCVBUF; 0: the system's. A small one makes a reader slow soon.
    int receive_buffer_bytes = 0;
  };

  // What the server answered to the upgrade.
  struct Upgrade {
    int status = 0;
    std::string body;
    std::map<std::string, std::string> headers;  // Names in lower case.
  };

  struct Message {
    std::string bytes;
    bool binary = false;
  };

  // Connects and upgrades. On an error `upgrade` (may be null) says what the server answered, status 0 for nothing.
  static absl::StatusOr<std::unique_ptr<WsClient>> Connect(const Options& options, Upgrade* upgrade = nullptr);
  ~WsClient();

  absl::Status SendText(std::string_view bytes);
  absl::Status SendBinary(std::string_view bytes);
  // A frame's bytes as they are, for what an honest client never sends.
  absl::Status SendRaw(std::string_view bytes);
  absl::Status SendPing(std::string_view payload);

  // The next message; pings are answered on the way. Cancelled once the server has closed, with the code below;
  // Unavailable if the connection broke without a close frame.
  absl::StatusOr<Message> Read();
  // Reads until the connection ends and returns its close code, or 0 if it broke without one.
  int ReadUntilClosed();

  int close_code() const;
  std::string close_reason() const;
  // Control frames received while reading.
  int pings_received() const;
  std::string last_pong() const;

  // Starts the closing handshake and waits for its end.
  absl::Status Close(uint16_t code);
  // Cuts the connection without a word.
  void Abort();

 private:
  struct Impl;
  explicit WsClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace runnel::testing
