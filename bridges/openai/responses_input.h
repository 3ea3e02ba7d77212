#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

// Appends the `input` of a response to the messages of `request`: a string, or an array of messages, function calls,
// their outputs, and reasoning. What the assistant produced in one turn becomes one message: reasoning, then content,
// then calls. UNSUPPORTED_PARAMETER for other types of items.
absl::Status ReadResponsesInput(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request);

}  // namespace runnel::openai
