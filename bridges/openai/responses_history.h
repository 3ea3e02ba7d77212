#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bridges/openai/responses_request.h"
#include "runnel/v1/inference.pb.h"

// What a request takes over from earlier responses: items that it refers to, and the conversation before
// previous_response_id. The bridge reads these from the service; the functions here are pure.
namespace runnel::openai {

// The most responses that precede a request.
inline constexpr size_t kMaxEarlierResponses = 1024;

// `resp_x` for `gen_x`.
std::string ResponseIdOf(std::string_view generation_id);

// Puts the item into the message of `request` that refers to it. `generation` has its texts. NotFound if it has no such
// item or is not a stored response, InvalidArgument if it has not ended.
absl::Status ResolveReference(const ItemReference& reference, const v1::Generation& generation,
                              v1::GenerateRequest* request);

// The conversation that a request continues, built from its end: the response of previous_response_id first, then the
// one before that.
class EarlierConversation {
 public:
  // `max_bytes` is the limit of all messages of the request.
  EarlierConversation(ResponsesRequest* body, size_t max_bytes);

  // The generation of the next response to add; empty: none.
  const std::string& next() const { return next_; }
  // Adds it with the input that was kept with it. `generation` has its texts. NotFound if it is not a stored response
  // or has no input, InvalidArgument if it has not ended or the conversation is too long. Calls that are not complete
  // are left out, unless their results follow.
  absl::Status Add(const v1::Generation& generation, const std::string& kept_input);
  // The errors for a response that the service does not have, and for one with too much input.
  absl::Status Missing() const;
  absl::Status TooLong() const;

  // Puts all messages before the input of the request.
  void Finish();

 private:
  ResponsesRequest* const body_;
  const size_t max_bytes_;
  std::string next_;
  std::vector<v1::ChatMessage> messages_;  // the last one first
  std::set<std::string> results_;          // the calls whose results follow
  size_t bytes_ = 0;
  size_t responses_ = 0;
};

// InvalidArgument if the messages of `request` have more than `max_bytes`.
absl::Status CheckMessageBytes(const v1::GenerateRequest& request, size_t max_bytes);

}  // namespace runnel::openai
