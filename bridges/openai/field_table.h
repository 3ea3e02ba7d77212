#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "bridges/openai/openai_fields.h"
#include "bridges/openai/other_fields.h"
#include "runnel/v1/inference.pb.h"
#include "services/base/status_macros.h"

namespace runnel::openai {

// The fields that one request format reads. `Draft` is the request while it is read: it has `request()`, the
// GenerateRequest that it fills, and `logprobs`, its LogprobFields.
template <typename Draft>
class FieldTable {
 public:
  struct Row {
    const char* name;
    absl::Status (*read)(const std::string& field, const nlohmann::json& value, Draft* draft);
  };
  using Rows = std::span<const Row>;

  // Fields are read in the order of their rows, those of `common` first. The rows must outlive the table.
  constexpr explicit FieldTable(Rows common, Rows own = {}) : parts_{common, own} {}

  std::vector<std::string_view> Names() const {
    std::vector<std::string_view> names;
    for (const Rows& rows : parts_) {
      for (const Row& row : rows) names.push_back(row.name);
    }
    return names;
  }

  // Reads all fields of `body`. Null is the same as absent. Fields without a row are treated as ReadOtherField says.
  absl::Status Read(const nlohmann::json& body, Draft* draft) const {
    for (const Rows& rows : parts_) {
      for (const Row& row : rows) {
        const nlohmann::json* value = FindField(body, row.name);
        if (value != nullptr) RETURN_IF_ERROR(row.read(row.name, *value, draft));
      }
    }
    return ReadOtherFields(body, Names(), draft->request());
  }

  // A function of json_fields.h or openai_fields.h as the `read` of a row.
  template <auto kRead>
  static absl::Status IntoRequest(const std::string& field, const nlohmann::json& value, Draft* draft) {
    return kRead(field, value, draft->request());
  }
  static absl::Status TopLogprobs(const std::string& field, const nlohmann::json& value, Draft* draft) {
    return ReadTopLogprobs(field, value, &draft->logprobs);
  }

 private:
  std::array<Rows, 2> parts_;
};

}  // namespace runnel::openai
