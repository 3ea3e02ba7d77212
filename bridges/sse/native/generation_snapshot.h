#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "bridges/base/net.h"
#include "bridges/server/io_threads.h"
#include "bridges/sse/http/http_connection.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// A generation as it stands, with its whole text. A small one comes with one call; the text of a large one is read
// through the Link, in pieces, and is at least as new as the call. Fails as GetGeneration, or with FailedPrecondition
// TEXT_TOO_LARGE beyond kMaxCollectedBytes, or with Cancelled if the client has gone, which `connection` then says.
bridge::Awaitable<absl::StatusOr<v1::Generation>> ReadGeneration(bridge::IoThread* thread, HttpConnection* connection,
                                                                 std::string id, std::string principal);

}  // namespace runnel::sse
