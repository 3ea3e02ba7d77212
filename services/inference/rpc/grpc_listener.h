#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/base/listen_socket.h"
#include "services/base/message_limits.h"

namespace runnel::base {
class Metrics;
}

namespace runnel::inference {

// Limits of the gRPC port, for a single client and for all clients together.
struct GrpcLimits {
  uint32_t max_connections = 1024;
  uint32_t max_streams = 1000;                                // per connection
  size_t max_request_bytes = base::kGrpcDefaultMessageBytes;  // per message
  // Time for a client to send the first bytes of HTTP/2, before its connection is closed.
  absl::Duration handshake_timeout = absl::Seconds(10);
  // A connection without a stream for this time is closed (with GOAWAY); gRPC clients reconnect for their next call.
  absl::Duration idle_timeout = absl::Minutes(5);
};

// The gRPC server of the process, with the health service, and its listening socket.
//
// gRPC 1.51 cannot limit its connections, so a thread of the listener accepts them, closes those above the limit
// immediately and hands the others to gRPC. gRPC does not report when a connection ends; the thread therefore keeps a
// duplicate of each descriptor and watches it for the hang-up that follows gRPC's shutdown(2) or the peer's reset. So a
// connection takes two descriptors.
class GrpcListener {
 public:
  struct Options {
    std::string address;  // see base::ListenOn
    bool reflection = false;
    GrpcLimits limits;
  };

  // Serves `service`. `service` and `metrics` must outlive the listener. Fails as base::ListenOn does.
  static absl::StatusOr<std::unique_ptr<GrpcListener>> Create(const Options& options, grpc::Service* service,
                                                              base::Metrics* metrics);
  // In two steps, for a caller that needs the port first: connections wait until the second.
  static absl::StatusOr<base::ListenSocket> Listen(const Options& options);
  static absl::StatusOr<std::unique_ptr<GrpcListener>> Create(const Options& options, base::ListenSocket socket,
                                                              grpc::Service* service, base::Metrics* metrics);
  // Shuts the server down without a grace period, unless that was done before, and waits for it.
  ~GrpcListener();

  int port() const;
  grpc::Server& server();
  // The connections that gRPC has open now.
  size_t connections() const;

  // Accepts no more connections. Calls continue until the caller shuts the server down.
  void StopAccepting();

 private:
  class Acceptor;
  GrpcListener(std::unique_ptr<Acceptor> acceptor, std::unique_ptr<grpc::Server> server);

  // The server is destroyed first: its connections must end before their duplicates are closed.
  const std::unique_ptr<Acceptor> acceptor_;
  const std::unique_ptr<grpc::Server> server_;
};

}  // namespace runnel::inference
