#include "bridges/wire/json_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

using base::InvalidField;
using nlohmann::json;

constexpr size_t kMaxShownKeyBytes = 64;

}  // namespace

const json* FindField(const json& object, const std::string& key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool IsNothing(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();
}

absl::Status CheckKeys(const std::string& path, const json& object, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_null() || std::find(known.begin(), known.end(), key) != known.end()) continue;
    return Unsupported(absl::StrCat(path, ".", ShownKey(key)), "is not supported: leave it out");
  }
  return absl::OkStatus();
}

absl::Status Unsupported(std::string_view field, std::string_view message) {
  return InvalidField(field, message, "UNSUPPORTED_PARAMETER");
}

std::string ShownKey(std::string_view key) {
  std::string shown(key.substr(0, kMaxShownKeyBytes));
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  return shown;
}

absl::Status ReadText(const std::string& field, const json& value, size_t least, size_t most, std::string* out) {
  if (!value.is_string()) return InvalidField(field, "must be a string");
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() < least || text.size() > most) {
    return InvalidField(field, absl::StrCat("must have ", least, " to ", most, " bytes"));
  }
  *out = text;
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ReadWhole(const std::string& field, const json& value, uint64_t least, uint64_t most) {
  // The parser makes a float of a number that is too large, and a signed integer of one with a sign.
  if (!value.is_number_unsigned() || value.get<uint64_t>() < least || value.get<uint64_t>() > most) {
    return InvalidField(field, absl::StrCat("must be a whole number from ", least, " to ", most));
  }
  return value.get<uint64_t>();
}

absl::StatusOr<float> ReadNumber(const std::string& field, const json& value, double least, double most) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= least && number <= most)) {
    return InvalidField(field, absl::StrCat("must be a number from ", least, " to ", most));
  }
  return static_cast<float>(number);
}

absl::Status ReadFlag(const std::string& field, const json& value, bool* out) {
  if (!value.is_boolean()) return InvalidField(field, "must be true or false");
  *out = value.get<bool>();
  return absl::OkStatus();
}

absl::Status ReadMaxTokens(const std::string& field, const json& value, v1::GenerateRequest* request) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() == 0) {
    return InvalidField(field, "must be a whole number of at least 1");
  }
  constexpr uint64_t kMost = std::numeric_limits<uint32_t>::max();
  request->set_max_tokens(static_cast<uint32_t>(std::min(value.get<uint64_t>(), kMost)));
  return absl::OkStatus();
}

absl::Status ReadStop(const std::string& field, const json& value, v1::GenerateRequest* request) {
  if (value.is_string()) return ReadText(field, value, 1, base::kMaxStopBytes, request->add_stop());
  if (!value.is_array() || value.size() > base::kMaxStops) {
    return InvalidField(field, absl::StrCat("must be a string or an array of at most ", base::kMaxStops, " strings"));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(ReadText(absl::StrCat(field, "[", i, "]"), value[i], 1, base::kMaxStopBytes, request->add_stop()));
  }
  return absl::OkStatus();
}

absl::Status ReadEach(const std::string& field, const json& value, size_t most,
                      absl::FunctionRef<absl::Status(const std::string& path, const json& object)> read) {
  if (!value.is_array() || value.empty() || value.size() > most) {
    return InvalidField(field, absl::StrCat("must be an array of 1 to ", most, " objects"));
  }
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string path = absl::StrCat(field, "[", i, "]");
    if (!value[i].is_object()) return InvalidField(path, "must be an object");
    RETURN_IF_ERROR(read(path, value[i]));
  }
  return absl::OkStatus();
}

absl::Status ReadMetadata(const std::string& field, const json& value, v1::GenerateRequest* request) {
  if (!value.is_object() || value.size() > base::kMaxMetadataPairs) {
    return InvalidField(field, absl::StrCat("must be an object of at most ", base::kMaxMetadataPairs, " pairs"));
  }
  for (const auto& [key, item] : value.items()) {
    if (key.empty() || key.size() > base::kMaxMetadataKeyBytes) {
      return InvalidField(field, absl::StrCat("keys must have 1 to ", base::kMaxMetadataKeyBytes, " bytes"));
    }
    RETURN_IF_ERROR(ReadText(absl::StrCat(field, ".", key), item, 0, base::kMaxMetadataValueBytes,
                             &(*request->mutable_metadata())[key]));
  }
  return absl::OkStatus();
}

}  // namespace runnel::bridge
