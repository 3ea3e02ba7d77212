#include "bridges/openai/responses_input.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "bridges/wire/chat_message.h"
#include "bridges/wire/json_fields.h"
#include "bridges/wire/tool_fields.h"
#include "services/base/grpc_status.h"
#include "services/base/request_limits.h"
#include "services/base/status_macros.h"

namespace runnel::openai {
namespace {

using base::InvalidField;
using bridge::CheckKeys;
using bridge::FindField;
using bridge::PartType;
using bridge::Unsupported;
using nlohmann::json;

constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();  // the body's limit is lower

const PartType kMessageParts[] = {{"input_text", "text"},
                                  {"output_text", "text"},
                                  {"text", "text"},
                                  {"refusal", "refusal"},
                                  {"input_image", "image_url", PartType::Kind::kImageUrl}};
const PartType kOutputParts[] = {{"input_text", "text"}, {"input_image", "image_url", PartType::Kind::kImageUrl}};

// Reads one item after another, and joins those of one turn of the assistant.
class InputReader {
 public:
  explicit InputReader(v1::GenerateRequest* request) : request_(request) {}

  absl::Status ReadItem(const std::string& path, const json& item) {
    const json* type = FindField(item, "type");
    const std::string name = type == nullptr ? "message" : type->is_string() ? type->get<std::string>() : "";
    if (name == "message") return ReadMessage(path, item);
    if (name == "function_call") return ReadCall(path, item);
    if (name == "function_call_output") return ReadOutput(path, item);
    if (name == "reasoning") return ReadReasoning(path, item);
    if (name == "item_reference") {
      return Unsupported(path + ".type", "items cannot be referred to: send the item itself, or set store: false");
    }
    return Unsupported(path + ".type",
                       "must be message, function_call, function_call_output or reasoning: others are not supported");
  }

 private:
  // Clients repeat id and status from a response; the model does not need them.
  absl::Status ReadMessage(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "role", "content", "id", "status", "phase"}));
    v1::ChatMessage message;
    RETURN_IF_ERROR(bridge::ReadRole(path + ".role", item, &message));
    if (message.role() == v1::CHAT_ROLE_TOOL) {
      return Unsupported(path + ".role", "is not supported: use an item of the type function_call_output");
    }
    const json* content = FindField(item, "content");
    if (content == nullptr) return InvalidField(path + ".content", "is missing");
    RETURN_IF_ERROR(bridge::ReadContent(path + ".content", *content, kMessageParts, &message));
    // Reasoning before it belongs to the same turn.
    const bool joins = message.role() == v1::CHAT_ROLE_ASSISTANT && turn_ != nullptr && turn_->content().empty() &&
                       turn_->tool_calls().empty();
    if (joins) {
      turn_->set_content(message.content());
    } else {
      *request_->add_messages() = message;
      turn_ = message.role() == v1::CHAT_ROLE_ASSISTANT ? Last() : nullptr;
    }
    return absl::OkStatus();
  }

  absl::Status ReadCall(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "call_id", "name", "arguments", "id", "status"}));
    if (turn_ == nullptr) BeginTurn();
    if (static_cast<size_t>(turn_->tool_calls_size()) >= base::kMaxToolCalls) {
      return InvalidField(path, absl::StrCat("a turn must have at most ", base::kMaxToolCalls, " calls"));
    }
    v1::CalledTool* call = turn_->add_tool_calls();
    RETURN_IF_ERROR(bridge::ReadCallName(path, item, "call_id", call->mutable_id()));
    RETURN_IF_ERROR(bridge::ReadCallName(path, item, "name", call->mutable_name()));
    const json* arguments = FindField(item, "arguments");
    if (arguments == nullptr) return absl::OkStatus();
    return bridge::ReadText(path + ".arguments", *arguments, 0, kMaxTextBytes, call->mutable_arguments());
  }

  absl::Status ReadOutput(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "call_id", "output", "id", "status"}));
    v1::ChatMessage* message = request_->add_messages();
    turn_ = nullptr;
    message->set_role(v1::CHAT_ROLE_TOOL);
    RETURN_IF_ERROR(bridge::ReadCallName(path, item, "call_id", message->mutable_tool_call_id()));
    const json* output = FindField(item, "output");
    if (output == nullptr) return InvalidField(path + ".output", "is missing");
    return bridge::ReadContent(path + ".output", *output, kOutputParts, message);
  }

  // Encrypted reasoning is of other servers: it cannot be read, and is ignored.
  absl::Status ReadReasoning(const std::string& path, const json& item) {
    RETURN_IF_ERROR(CheckKeys(path, item, {"type", "id", "summary", "content", "encrypted_content", "status"}));
    std::string reasoning;
    RETURN_IF_ERROR(JoinTexts(path + ".content", FindField(item, "content"), &reasoning));
    if (reasoning.empty()) RETURN_IF_ERROR(JoinTexts(path + ".summary", FindField(item, "summary"), &reasoning));
    if (reasoning.empty()) return absl::OkStatus();
    const bool joins = turn_ != nullptr && turn_->content().empty() && turn_->tool_calls().empty();
    if (!joins) BeginTurn();
    turn_->mutable_reasoning()->append(reasoning);
    return absl::OkStatus();
  }

  static absl::Status JoinTexts(const std::string& field, const json* texts, std::string* out) {
    if (texts == nullptr || texts->empty()) return absl::OkStatus();
    return bridge::ReadEach(field, *texts, base::kMaxContentParts, [out](const std::string& path, const json& each) {
      std::string text;
      const json* value = FindField(each, "text");
      if (value == nullptr) return InvalidField(path + ".text", "is missing");
      RETURN_IF_ERROR(bridge::ReadText(path + ".text", *value, 0, kMaxTextBytes, &text));
      out->append(text);
      return absl::OkStatus();
    });
  }

  v1::ChatMessage* Last() { return request_->mutable_messages(request_->messages_size() - 1); }
  void BeginTurn() {
    turn_ = request_->add_messages();
    turn_->set_role(v1::CHAT_ROLE_ASSISTANT);
  }

  v1::GenerateRequest* const request_;
  v1::ChatMessage* turn_ = nullptr;  // the last message, if it is of the assistant
};

}  // namespace

absl::Status ReadResponsesInput(const std::string& field, const json& value, v1::GenerateRequest* request) {
  if (value.is_string()) {
    v1::ChatMessage* message = request->add_messages();
    message->set_role(v1::CHAT_ROLE_USER);
    return bridge::ReadText(field, value, 1, kMaxTextBytes, message->mutable_content());
  }
  if (!value.is_array()) return InvalidField(field, "must be a string or an array of items");
  InputReader reader(request);
  return bridge::ReadEach(field, value, base::kMaxMessages,
                          [&reader](const std::string& path, const json& item) { return reader.ReadItem(path, item); });
}

}  // namespace runnel::openai
