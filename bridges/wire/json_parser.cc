#include "bridges/wire/json_parser.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"

namespace runnel::bridge {
namespace {

using nlohmann::json;

// A JSON Schema of a tool may be nested 64 deep, and is itself four deep in the body.
constexpr int kMaxDepth = 72;

absl::Status InvalidJson(std::string_view message) {
  return base::MakeError(absl::StatusCode::kInvalidArgument, "INVALID_JSON", message);
}

// Checks each key while it is parsed: the finished object holds only the last of two equal keys.
class DuplicateFinder {
 public:
  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        too_deep |= depth >= kMaxDepth;
        keys_.emplace_back();
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        if (!keys_.empty()) keys_.pop_back();
        break;
      case json::parse_event_t::key:
        if (!keys_.empty() && !keys_.back().insert(parsed.get<std::string>()).second) duplicate = true;
        break;
      case json::parse_event_t::value:
        break;
    }
    // The result is not used once the body is rejected; not keeping it bounds its depth.
    return !too_deep && !duplicate;
  }

  bool too_deep = false;
  bool duplicate = false;

 private:
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

absl::StatusOr<json> ParseJsonObject(std::string_view bytes) {
  // The parser takes a NUL for the end of its input and ignores what follows.
  if (bytes.find('\0') != std::string_view::npos) return InvalidJson("the body contains a NUL, which is not JSON");
  DuplicateFinder finder;
  json parsed = json::parse(bytes, std::ref(finder), /*allow_exceptions=*/false);
  if (finder.too_deep) return InvalidJson(absl::StrCat("the JSON is nested more deeply than ", kMaxDepth));
  if (finder.duplicate) return InvalidJson("the JSON has a duplicate key in an object");
  if (parsed.is_discarded()) return InvalidJson("the body is not valid JSON");
  if (!parsed.is_object()) return InvalidJson("the body must be a JSON object");
  return parsed;
}

}  // namespace runnel::bridge
