#pragma once

#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

// What becomes of the fields of OpenAI-compatible requests that no code here reads. proto/README.md has them all in a
// table, which a test holds against this.
namespace runnel::openai {

// A field at the top level of a body, whose value is not null. Ignored if it cannot change the text; refused (reason
// UNSUPPORTED_PARAMETER) if nothing here does what it asks for; otherwise, and if it is not known at all, handed to the
// engine of the model in `extra_fields`, which refuses what it does not know. A value that asks for nothing, such as an
// empty list, is ignored.
absl::Status ReadOtherField(const std::string& name, const nlohmann::json& value, v1::GenerateRequest* request);

// ReadOtherField for each field of `body` that is not null and not among `read`.
absl::Status ReadOtherFields(const nlohmann::json& body, const std::vector<std::string_view>& read,
                             v1::GenerateRequest* request);

// Refuses (UNSUPPORTED_PARAMETER) the first key of `object` that is neither among `known` nor null. `path` is the path
// of `object` in the body.
absl::Status CheckKeys(const std::string& path, const nlohmann::json& object,
                       std::initializer_list<std::string_view> known);

// The names that ReadOtherField knows.
std::vector<std::string_view> OtherFieldNames();

}  // namespace runnel::openai
