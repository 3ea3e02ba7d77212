#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

// Where a format object has its JSON Schema.
enum class SchemaPlace {
  kNested,  // {"type":"json_schema","json_schema":{"schema":..}}, of the completions
  kInline,  // {"type":"json_schema","schema":..}, of the responses
};

// Reads the format object at `path` in `body`, of type text, json_object or json_schema. `value` is that object,
// parsed. The properties of a schema keep the order that they have in `body`, because the output follows it.
absl::Status ReadOutputFormat(const std::string& path, const nlohmann::json& value, SchemaPlace place,
                              std::string_view body, v1::GenerateRequest* request);

}  // namespace runnel::openai
