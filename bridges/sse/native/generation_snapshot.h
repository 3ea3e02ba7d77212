#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "bridges/base/net.h"
#include "bridges/sse/stream/api_call.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// Reads the current state of a generation, with its whole text. A short text takes one call. A long one is read through
// the Link, in pieces, and is at least as new as that call. Fails as GetGeneration does, with FailedPrecondition
// TEXT_TOO_LARGE above kMaxCollectedBytes, or with Cancelled if the client has disconnected; the connection's
// client_gone() is true then. `call` must outlive the coroutine.
bridge::Awaitable<absl::StatusOr<v1::Generation>> ReadGeneration(const ApiCall* call, std::string id);

}  // namespace runnel::sse
