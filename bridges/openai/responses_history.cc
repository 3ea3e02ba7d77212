#include "bridges/openai/responses_history.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/openai/responses_format.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using nlohmann::json;

constexpr size_t kIdPrefixBytes = 4;  // `gen_`
constexpr char kPrevious[] = "previous_response_id";

bool HasEnded(const v1::Generation& generation) { return generation.has_done() || generation.has_failed(); }

absl::Status NotEnded(const std::string& field, std::string_view generation_id) {
  return InvalidField(field, absl::StrCat("the response ", ResponseIdOf(generation_id),
                                          " has not ended: wait for its end, or cancel it"));
}

absl::Status TooManyBytes(const std::string& field, size_t max_bytes) {
  return InvalidField(field, absl::StrCat("the conversation with the earlier responses has more than ", max_bytes,
                                          " bytes, the most that a request may have"));
}

void PutInto(ResponseItem item, v1::ChatMessage* message) {
  message->set_role(v1::CHAT_ROLE_ASSISTANT);
  switch (item.kind) {
    case v1::PART_KIND_REASONING:
      message->set_reasoning(std::move(item.content));
      break;
    case v1::PART_KIND_TOOL_CALL: {
      v1::CalledTool* call = message->add_tool_calls();
      call->set_id(std::move(item.call_id));
      call->set_name(std::move(item.name));
      call->set_arguments(std::move(item.content));
      break;
    }
    default:
      message->set_content(std::move(item.content));
  }
}

// The stored response that `generation` is.
absl::StatusOr<ResponseEcho> StoredEcho(const v1::Generation& generation) {
  absl::StatusOr<ResponseEcho> echo = ResponseEcho::FromAnnotation(generation.annotation());
  if (echo.ok() && !echo->store) return absl::NotFoundError("the response is not stored");
  return echo;
}

}  // namespace

std::string ResponseIdOf(std::string_view generation_id) {
  return absl::StrCat("resp_", base::ToAbsl(generation_id.substr(kIdPrefixBytes)));
}

absl::Status ResolveReference(const ItemReference& reference, const v1::Generation& generation,
                              v1::GenerateRequest* request) {
  absl::StatusOr<ResponseEcho> echo = StoredEcho(generation);
  if (!echo.ok()) return MissingItem(reference.path, reference.id);
  if (!HasEnded(generation)) return NotEnded(reference.path, generation.id());
  ResponseState state = ResponseState::Of(generation, *std::move(echo));
  ResponseItem* item = FindItem(reference.name.part, &state.items);
  if (item == nullptr || !IsPrefixOf(reference.name.prefix, item->kind)) {
    return MissingItem(reference.path, reference.id);
  }
  PutInto(std::move(*item), request->mutable_messages(reference.message));
  return absl::OkStatus();
}

EarlierConversation::EarlierConversation(ResponsesRequest* body, size_t max_bytes)
    : body_(body), max_bytes_(max_bytes), next_(body->previous) {
  for (const v1::ChatMessage& message : body->request.messages()) {
    bytes_ += message.ByteSizeLong();
    if (!message.tool_call_id().empty()) results_.insert(message.tool_call_id());
  }
}

absl::Status EarlierConversation::Missing() const { return MissingResponse(ResponseIdOf(next_)); }

absl::Status EarlierConversation::TooLong() const { return TooManyBytes(kPrevious, max_bytes_); }

absl::Status EarlierConversation::Add(const v1::Generation& generation, const std::string& kept_input) {
  absl::StatusOr<ResponseEcho> echo = StoredEcho(generation);
  v1::KeptInput input;
  if (!echo.ok() || kept_input.empty() || !input.ParseFromString(kept_input)) return Missing();
  if (!HasEnded(generation)) return NotEnded(kPrevious, generation.id());
  if (++responses_ > kMaxEarlierResponses) {
    return InvalidField(kPrevious, absl::StrCat("more than ", kMaxEarlierResponses,
                                                " responses precede: send the whole conversation as input"));
  }
  const json previous = json::parse(echo->previous_response_id, nullptr, /*allow_exceptions=*/false);
  ResponseState state = ResponseState::Of(generation, *std::move(echo));
  v1::GenerateRequest output;
  for (ResponseItem& item : state.items) {
    if (item.is_call() && item.status != "completed" && results_.count(item.call_id) == 0) continue;
    PutInto(std::move(item), output.add_messages());
  }
  RETURN_IF_ERROR(JoinTurns(&output));
  for (auto* messages : {output.mutable_messages(), input.mutable_messages()}) {
    for (auto each = messages->rbegin(); each != messages->rend(); ++each) {
      bytes_ += each->ByteSizeLong();
      if (!each->tool_call_id().empty()) results_.insert(each->tool_call_id());
      messages_.push_back(std::move(*each));
    }
  }
  if (bytes_ > max_bytes_) return TooLong();
  if (messages_.size() + static_cast<size_t>(body_->request.messages_size()) > base::kMaxMessages) {
    return InvalidField(kPrevious, absl::StrCat("the conversation has more than ", base::kMaxMessages, " messages"));
  }
  next_.clear();
  if (!previous.is_string()) return absl::OkStatus();
  absl::StatusOr<std::string> next = GenerationOfResponse(previous.get_ref<const std::string&>());
  if (!next.ok()) return MissingResponse(previous.get_ref<const std::string&>());
  next_ = *std::move(next);
  return absl::OkStatus();
}

void EarlierConversation::Finish() {
  google::protobuf::RepeatedPtrField<v1::ChatMessage> own;
  own.Swap(body_->request.mutable_messages());
  auto* messages = body_->request.mutable_messages();
  for (int i = 0; i < own.size(); ++i) {
    if (i == body_->instructions) {
      for (auto each = messages_.rbegin(); each != messages_.rend(); ++each) *messages->Add() = std::move(*each);
    }
    *messages->Add() = std::move(own[i]);
  }
}

absl::Status CheckMessageBytes(const v1::GenerateRequest& request, size_t max_bytes) {
  size_t bytes = 0;
  for (const v1::ChatMessage& message : request.messages()) bytes += message.ByteSizeLong();
  return bytes > max_bytes ? TooManyBytes("input", max_bytes) : absl::OkStatus();
}

}  // namespace runnel::openai
