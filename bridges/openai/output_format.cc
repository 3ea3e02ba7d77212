#include "bridges/openai/output_format.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "bridges/openai/openai_fields.h"
#include "bridges/openai/other_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using nlohmann::json;
using nlohmann::ordered_json;

// The schema at `path` in `body`, with its properties in their order. An ordered_json looks for a key by comparing all,
// so only the keys on the path are kept, and those below it, which the caller has counted.
std::string OrderedSchema(std::string_view body, const std::string& path) {
  const std::vector<std::string> keys = absl::StrSplit(path, '.');
  const auto keep = [&keys](int depth, ordered_json::parse_event_t event, ordered_json& parsed) {
    if (event != ordered_json::parse_event_t::key) return true;
    const auto level = static_cast<size_t>(depth) - 1;
    return level >= keys.size() || parsed.get_ref<const std::string&>() == keys[level];
  };
  const ordered_json root = ordered_json::parse(body, keep, /*allow_exceptions=*/false);
  const ordered_json* schema = &root;
  for (const std::string& key : keys) schema = &schema->at(key);
  return schema->dump();
}

absl::Status CheckFormatKeys(const std::string& path, const json& format, SchemaPlace place) {
  if (*FindField(format, "type") != "json_schema") return CheckKeys(path, format, {"type"});
  if (place == SchemaPlace::kNested) return CheckKeys(path, format, {"type", "json_schema"});
  return CheckKeys(path, format, {"type", "schema", "name", "strict", "description"});
}

}  // namespace

absl::Status ReadOutputFormat(const std::string& path, const json& value, SchemaPlace place, std::string_view body,
                              v1::GenerateRequest* request) {
  const bool nested = place == SchemaPlace::kNested;
  const json* type = value.is_object() ? FindField(value, "type") : nullptr;
  if (type == nullptr || !type->is_string()) return InvalidField(path, "must be an object with a type");
  // The engine enforces every schema strictly. Its name and description are not shown to the model.
  RETURN_IF_ERROR(CheckFormatKeys(path, value, place));
  if (*type == "text") return absl::OkStatus();
  if (*type == "json_object") {
    request->mutable_output_format()->set_json_object(true);
    return absl::OkStatus();
  }
  if (*type != "json_schema") {
    return InvalidField(nested ? path + ".type" : path, "must be text, json_object or json_schema");
  }
  const std::string holder_path = nested ? path + ".json_schema" : path;
  const json* holder = nested ? FindField(value, "json_schema") : &value;
  const json* schema = holder != nullptr && holder->is_object() ? FindField(*holder, "schema") : nullptr;
  if (schema == nullptr || !schema->is_object()) {
    return InvalidField(holder_path, "must be an object that has the schema as an object");
  }
  if (nested) RETURN_IF_ERROR(CheckKeys(holder_path, *holder, {"schema", "name", "strict", "description"}));
  if (schema->dump().size() > base::kMaxSchemaBytes) {
    return InvalidField(nested ? holder_path : path + ".schema",
                        absl::StrCat("must have at most ", base::kMaxSchemaBytes, " bytes"));
  }
  request->mutable_output_format()->set_json_schema(OrderedSchema(body, holder_path + ".schema"));
  return absl::OkStatus();
}

}  // namespace runnel::openai
