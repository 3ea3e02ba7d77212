#pragma once

#include <string>
#include <string_view>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// Converts errors of the upstream: to the code of the generation's failure, and whether the same request may succeed
// when it is retried. The upstream's message is passed on to the client and never logged, because it may quote the
// prompt.

// For a response with an HTTP status other than 200, or an error inside a stream that names one. A rejected request
// (400, 404, 422 and so on) and a server without room (429, 503) are passed on as Failed::server_error. `secret` (the
// key; may be empty) is removed from all parts. 401, 402, 403 and 407 concern the service's own account: they have a
// fixed message, because servers quote the key in theirs.
Failed FailureOfStatus(int status, const UpstreamError& error, std::string_view secret,
                       absl::Duration retry_after = absl::ZeroDuration());

// What such a status says about the upstream. An error in the request (400, 404, 422 and so on) does not count against
// it. A server that says when to retry is busy, not faulty.
UpstreamVerdict VerdictOfStatus(int status, absl::Duration retry_after = absl::ZeroDuration());

// The pause that the upstream asks for in a Retry-After header, as seconds or as a date; zero for anything else, and at
// most a day.
absl::Duration ParseRetryAfter(std::string_view header, absl::Time now = absl::Now());

// Whether `failed` rejects the request because of `field`.
bool NamesField(const Failed& failed, std::string_view field);

// An error inside a stream, with or without a status.
Failed FailureOfError(const UpstreamError& error, std::string_view secret);

// What to report if a server that is asked for the rest of an output sends none of it. The request of the client was
// accepted once: a rejection concerns how the rest is asked for.
Failed FailureOfContinuation(const Failed& failed);

// The connection could not be made, or was lost before the output was complete.
Failed Unavailable(std::string_view message);

// Valid UTF-8 on one line, at most `max_bytes` long.
std::string ToMessage(std::string_view bytes, size_t max_bytes);

}  // namespace runnel::inference
