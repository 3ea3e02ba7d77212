#pragma once

#include "absl/status/status.h"
#include "bridges/base/net.h"
#include "bridges/openai/responses_request.h"
#include "bridges/sse/stream/api_call.h"

namespace runnel::sse {

// Replaces the references of a request to earlier responses by what these said, and puts the conversation before
// previous_response_id before its input. Everything is read from the service, one response after another, as the
// principal of the call, up to --max_body_bytes. NotFound names a response or item that is not there, and suggests what
// to send. Cancelled if the client has disconnected; the connection's client_gone() is true then. Both must outlive the
// coroutine.
bridge::Awaitable<absl::Status> AddEarlierResponses(const ApiCall* call, openai::ResponsesRequest* body);

}  // namespace runnel::sse
