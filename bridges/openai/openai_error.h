#pragma once

#include "absl/status/status.h"
#include "bridges/wire/http_error.h"
#include "runnel/v1/inference.pb.h"

// Errors of the OpenAI-compatible routes, in the shape and with the retry headers that OpenAI's clients expect.
namespace runnel::openai {

enum class OpenAiApi { kChat, kCompletions, kResponses };

// The error for a rejected request, whose invalid field has the name that it has in `api`. `repeatable`: repeating the
// request does not start a second generation.
bridge::HttpError OpenAiErrorOf(const absl::Status& status, OpenAiApi api, bool repeatable = false);

// The error for a generation that has failed. A server behind the upstream engine that rejected the request decides on
// its status, type, code and param. The status is only sent if the response has not begun.
bridge::HttpError ErrorOfFailed(const v1::Failed& failed);
// The error for a generation that was cancelled, for which OpenAI has no finish reason.
bridge::HttpError ErrorOfCancelled();
// The error for a stream that broke: the state of the generation is unknown.
bridge::HttpError ErrorOfBroken();
// The error for a stream that has sent output which its generation does not have any more.
bridge::HttpError ErrorOfLostOutput();
// The error for a text that is too long for a response in one piece.
bridge::HttpError ErrorOfTooLarge();

}  // namespace runnel::openai
