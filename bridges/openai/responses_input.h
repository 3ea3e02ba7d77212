#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bridges/openai/response_items.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

// An item of the input that refers to an item of an earlier response.
struct ItemReference {
  std::string path;  // of its id
  std::string id;
  ItemName name;
  int message = 0;  // its place among the messages of the request
};

// Appends the `input` of a response to the messages of `request`: a string, or an array of messages, function calls,
// their outputs, reasoning and references. Each item becomes one message, a reference an empty one that is also added
// to `references`. UNSUPPORTED_PARAMETER for other types of items.
absl::Status ReadResponsesInput(const std::string& field, const nlohmann::json& value, v1::GenerateRequest* request,
                                std::vector<ItemReference>* references);

// Joins what the assistant produced in one turn into one message: reasoning, then content, then calls. InvalidArgument
// if a turn has too many calls.
absl::Status JoinTurns(v1::GenerateRequest* request);

// NotFound, with the id of the item or response that is not there and what the client can do.
absl::Status MissingItem(std::string_view field, std::string_view id);
absl::Status MissingResponse(std::string_view id);

}  // namespace runnel::openai
