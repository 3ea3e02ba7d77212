#pragma once

#include "bridges/server/io_threads.h"
#include "bridges/base/net.h"
#include "bridges/sse/openai/answer_reader.h"
#include "bridges/sse/stream/api_answer.h"
#include "bridges/sse/http/http_connection.h"
#include "bridges/openai/openai_error.h"
#include "bridges/sse/options.h"
#include "bridges/sse/http/routes.h"

namespace runnel::sse {

// POST /v1/chat/completions and /v1/completions. The route's method has been checked, and who asks. The pointers must
// outlive the coroutine.
bridge::Awaitable<ApiAnswer> AnswerCompletion(bridge::IoThread* thread, const SseOptions* options,
                                              HttpConnection* connection, const HttpRequest* request,
                                              const Route* route);

// The most that an answer in one piece may take in memory.
inline constexpr size_t kMaxAnswerBytes = 16 << 20;

// Makes `request` one whose generation goes with its client. The bridge cancels it by itself when the client goes; the
// detach timeout is for the death of the bridge. It must not be 0: a slow reader gives its attachment up now and then,
// and so does a Link that is lost.
void EndWithClient(const bridge::BridgeOptions& options, v1::GenerateRequest* request);

// What a FIN of the client means while it waits for an answer in one piece. Nothing can be sent to it before, so one
// that called close() cannot be told from one that called shutdown(SHUT_WR). The libraries of OpenAI abort a call by
// close(), and the generation must not run on then; so for their calls it means that the client has gone.
enum class OnHalfClose { kGiveUp, kGoOn };

// Reads what `reader` has begun to its end. False if the client has gone; the generation is cancelled then, as when it
// has become too large.
bridge::Awaitable<bool> ReadToEnd(bridge::IoThread* thread, HttpConnection* connection, AnswerReader* reader,
                                  OnHalfClose on_half_close);

// The error to answer with, if the reading did not end with a whole answer.
std::optional<bridge::HttpError> ErrorOfReading(const AnswerReader& reader, OpenAiApi api);

}  // namespace runnel::sse
