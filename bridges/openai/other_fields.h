#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

// The fields of OpenAI-compatible requests that no other code reads. proto/README.md lists all of them in a table,
// which a test compares with the code.
namespace runnel::openai {

// Treats a top-level field whose value is not null. A field that cannot change the text is ignored, and so is a value
// that requests nothing, for example an empty list. A field that is not supported is rejected (reason
// UNSUPPORTED_PARAMETER). Others, and unknown fields, are passed to the engine of the model in `extra_fields`; it
// rejects fields it does not know.
absl::Status ReadOtherField(const std::string& name, const nlohmann::json& value, v1::GenerateRequest* request);

// ReadOtherField for each field of `body` that is not null and not among `read`.
absl::Status ReadOtherFields(const nlohmann::json& body, const std::vector<std::string_view>& read,
                             v1::GenerateRequest* request);

// The names of the fields that ReadOtherField knows.
std::vector<std::string_view> OtherFieldNames();

}  // namespace runnel::openai
