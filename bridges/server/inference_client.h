#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bridges/base/net.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

struct IoThread;

// The unary calls of the inference service, each to the replica that keeps the generation. A call that is referred to
// another replica, or gets no reply from one that shares its logs, is repeated for up to the open timeout; all of them
// are idempotent. Call it on an io thread.
// Every call ends within its timeouts, with the service's status, Unavailable, NotFound or DeadlineExceeded.
class InferenceClient {
 public:
  template <typename Response>
  using Callback = std::function<void(absl::StatusOr<Response>)>;

  explicit InferenceClient(absl::Duration rpc_timeout);
  ~InferenceClient();

  // Cancels pending calls and waits until they have ended. The loops of the io threads must still exist. Callbacks that
  // have not run yet may never run. Idempotent.
  void Shutdown();

  // `done` runs on `thread`, never before the call returns, and not at all once its loop has stopped. `principal` is
  // the caller. Texts longer than `max_text_bytes` together are omitted, and the generation reports that.
  void GetGeneration(IoThread* thread, std::string id, std::string principal, uint64_t max_text_bytes,
                     Callback<v1::Generation> done);
  void CancelGeneration(IoThread* thread, std::string id, std::string principal,
                        Callback<v1::CancelGenerationResponse> done);
  void DeleteGeneration(IoThread* thread, std::string id, std::string principal,
                        Callback<v1::DeleteGenerationResponse> done);
  void ListModels(IoThread* thread, Callback<v1::ListModelsResponse> done);

  // The same for coroutines that run on `thread`.
  Awaitable<absl::StatusOr<v1::Generation>> GetGeneration(IoThread* thread, std::string id, std::string principal,
                                                          uint64_t max_text_bytes);
  // With the input that is kept with the generation, from byte `input_offset` on.
  Awaitable<absl::StatusOr<v1::GetGenerationResponse>> GetWithInput(IoThread* thread, std::string id,
                                                                    std::string principal, uint64_t max_text_bytes,
                                                                    uint64_t input_offset);
  Awaitable<absl::StatusOr<v1::CancelGenerationResponse>> CancelGeneration(IoThread* thread, std::string id,
                                                                           std::string principal);
  Awaitable<absl::StatusOr<v1::DeleteGenerationResponse>> DeleteGeneration(IoThread* thread, std::string id,
                                                                           std::string principal);
  Awaitable<absl::StatusOr<v1::ListModelsResponse>> ListModels(IoThread* thread);

 private:
  struct Calls;
  const absl::Duration rpc_timeout_;
  const std::shared_ptr<Calls> calls_;
};

}  // namespace runnel::bridge
