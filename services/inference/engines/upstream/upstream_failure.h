#pragma once

#include <string>
#include <string_view>

#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// Converts errors of the upstream: to the code of the generation's failure, and whether the same request may succeed
// when it is retried. The upstream's message is passed on to the client and never logged, because it may quote the
// prompt.

// For a response with an HTTP status other than 200, or an error inside a stream that names one. `secret` (the key; may
// be empty) is removed from the message; 401 and 403 have a fixed message, because servers quote the key in theirs.
Failed FailureOfStatus(int status, const UpstreamError& error, std::string_view secret);

// What such a status says about the upstream. An error in the request (400, 404, 422 and so on) does not count against
// it.
UpstreamVerdict VerdictOfStatus(int status);

// The pause that the upstream asks for: the seconds of a Retry-After header; zero for anything else.
absl::Duration ParseRetryAfter(std::string_view header);

// An error inside a stream, with or without a status.
Failed FailureOfError(const UpstreamError& error, std::string_view secret);

// The connection could not be made, or was lost before the output was complete.
Failed Unavailable(std::string_view message);

// Valid UTF-8 on one line, at most `max_bytes` long.
std::string ToMessage(std::string_view bytes, size_t max_bytes);

}  // namespace runnel::inference
