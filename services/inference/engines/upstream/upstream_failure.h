#pragma once

#include <string>
#include <string_view>

#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// What becomes of an error of the upstream: which of the stream's codes, and whether the same request may succeed when
// made again. Its message goes to the caller, who wrote the prompt, and never into a log: it may quote the prompt.

// An answer with an HTTP status other than 200, or an error inside a stream that names one. `secret` (the key; may be
// empty) is struck from the message; 401 and 403 have a message of our own, since servers quote the key in theirs.
Failed FailureOfStatus(int status, const UpstreamError& error, std::string_view secret);

// What such a status tells of the upstream. An error of the request's own (400, 404, 422 and the like) tells nothing
// against it.
UpstreamVerdict VerdictOfStatus(int status);

// How long the upstream asked to be left alone: the seconds of a Retry-After header; zero for anything else.
absl::Duration ParseRetryAfter(std::string_view header);

// An error inside a stream, with or without a status.
Failed FailureOfError(const UpstreamError& error, std::string_view secret);

// The connection could not be made, or was lost before the answer was whole.
Failed Unavailable(std::string_view message);

// Valid UTF-8 on one line, at most `max_bytes` long.
std::string ToMessage(std::string_view bytes, size_t max_bytes);

}  // namespace runnel::inference
