#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bridges/common/net.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

struct GrpcStub;

// The unary calls of the inference service, and the connection that the Links share. Thread-safe. Every call ends within
// the timeout, with the service's status, Unavailable or DeadlineExceeded.
class InferenceClient {
 public:
  template <typename Response>
  using Callback = std::function<void(absl::StatusOr<Response>)>;

  // `target` is host:port or any gRPC name. Does not connect yet.
  InferenceClient(const std::string& target, absl::Duration rpc_timeout);
  // Cancels what is under way and waits for its end; callbacks that have not run yet never will.
  ~InferenceClient();

  // `done` runs on the thread of `io`, never before the call returns, and not at all once `io` has stopped.
  void GetGeneration(net::io_context* io, std::string id, Callback<v1::Generation> done);
  void CancelGeneration(net::io_context* io, std::string id, Callback<v1::CancelGenerationResponse> done);
  void DeleteGeneration(net::io_context* io, std::string id, Callback<v1::DeleteGenerationResponse> done);
  void ListModels(net::io_context* io, Callback<v1::ListModelsResponse> done);

  // The same for coroutines that run on the thread of `io`.
  Awaitable<absl::StatusOr<v1::Generation>> GetGeneration(net::io_context* io, std::string id);
  Awaitable<absl::StatusOr<v1::CancelGenerationResponse>> CancelGeneration(net::io_context* io, std::string id);
  Awaitable<absl::StatusOr<v1::DeleteGenerationResponse>> DeleteGeneration(net::io_context* io, std::string id);
  Awaitable<absl::StatusOr<v1::ListModelsResponse>> ListModels(net::io_context* io);

  // For Links.
  GrpcStub* stub() { return stub_.get(); }

 private:
  struct Calls;
  const absl::Duration rpc_timeout_;
  std::unique_ptr<GrpcStub> stub_;
  std::shared_ptr<Calls> calls_;
};

}  // namespace runnel::bridge
