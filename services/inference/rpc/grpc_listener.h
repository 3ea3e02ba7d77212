#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/message_limits.h"

namespace runnel::base {
class Metrics;
}

namespace runnel::inference {

// What one client of the gRPC port, or many, may take of the process.
struct GrpcLimits {
  uint32_t max_connections = 1024;
  uint32_t max_streams = 1000;                                // of one connection
  size_t max_request_bytes = base::kGrpcDefaultMessageBytes;  // of one message
  // For a client to send the first bytes of HTTP/2; a connection that has not is closed.
  absl::Duration handshake_timeout = absl::Seconds(10);
  // A connection without a stream is closed (GOAWAY, then the end); gRPC clients connect again when they have a call.
  absl::Duration idle_timeout = absl::Minutes(5);
};

// The gRPC server of the process, with the health service, and the socket that it listens on.
//
// gRPC 1.51 cannot bound its connections, so a thread of ours accepts them, closes at once those above the limit and
// hands the others to gRPC. gRPC does not report when a connection ends; the thread therefore keeps a duplicate of each
// descriptor and watches it for the hang-up that follows gRPC's shutdown(2) or the peer's reset. So a connection takes
// two descriptors.
class GrpcListener {
 public:
  struct Options {
    std::string address;  // as base::ListenOn
    bool reflection = false;
    GrpcLimits limits;
  };

  // Serves `service`, which must outlive the listener, as must `metrics`. Fails as base::ListenOn.
  static absl::StatusOr<std::unique_ptr<GrpcListener>> Create(const Options& options, grpc::Service* service,
                                                              base::Metrics* metrics);
  // Shuts the server down at once if nobody has, and waits for it.
  ~GrpcListener();

  int port() const;
  grpc::Server& server();
  // Open now: those that gRPC has.
  size_t connections() const;

  // Accepts no more. Calls go on until the server is shut down, which the caller does next.
  void StopAccepting();

 private:
  class Acceptor;
  GrpcListener(std::unique_ptr<Acceptor> acceptor, std::unique_ptr<grpc::Server> server);

  // The server first: it must exist while connections are handed to it, and its connections end before their
  // duplicates are closed.
  const std::unique_ptr<Acceptor> acceptor_;
  const std::unique_ptr<grpc::Server> server_;
};

}  // namespace runnel::inference
