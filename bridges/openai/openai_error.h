#pragma once

#include "absl/status/status.h"
#include "bridges/wire/http_error.h"
#include "runnel/v1/inference.pb.h"

// Errors of the OpenAI-compatible routes: the shape and the retry headers that OpenAI's own clients act upon.
namespace runnel::openai {

enum class OpenAiApi { kChat, kCompletions, kResponses };

// A refusal, with the field at fault under the name that it has in `api`. `repeatable`: nothing starts twice if the
// client asks again.
bridge::HttpError OpenAiErrorOf(const absl::Status& status, OpenAiApi api, bool repeatable = false);

// A generation that has failed. Its status is for an answer that is no stream.
bridge::HttpError ErrorOfFailed(const v1::Failed& failed);
// One that was cut short by a cancel, which is not an end that OpenAI's finish reasons know.
bridge::HttpError ErrorOfCancelled();
// An answer whose reading broke off; nothing is known about the generation.
bridge::HttpError ErrorOfBroken();
// An answer that is longer than the bridge keeps.
bridge::HttpError ErrorOfTooLarge();

}  // namespace runnel::openai
