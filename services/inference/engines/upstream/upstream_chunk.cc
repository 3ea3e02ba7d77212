#include "services/inference/engines/upstream/upstream_chunk.h"

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/inference/engines/upstream/plain_chunk.h"
#include "services/inference/engines/upstream/stand_ins.h"

namespace runnel::inference {
namespace {

using Json = nlohmann::json;

// The choice of a piece whose index is invalid.
constexpr uint32_t kNoChoice = std::numeric_limits<uint32_t>::max();

const Json& Member(const Json& object, const char* name) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

uint32_t ReadUint32(const Json& value, uint32_t otherwise) {
  if (!value.is_number_unsigned()) return otherwise;
  return static_cast<uint32_t>(std::min<uint64_t>(value.get<uint64_t>(), std::numeric_limits<uint32_t>::max()));
}

std::string ReadString(const Json& value) { return value.is_string() ? value.get<std::string>() : std::string(); }

bool IsTruthy(const Json& value) {
  return !value.is_null() && value != false && value != "" && !(value.is_structured() && value.empty());
}

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// The names of OpenAI's API, vLLM, TGI, Mistral, Anthropic and Gemini. A reason that is not known counts as stop.
UpstreamFragment ReadFinish(const Json& value) {
  using Kind = UpstreamFragment::Kind;
  const std::string reason = absl::AsciiStrToLower(ReadString(value));
  UpstreamFragment fragment;
  fragment.kind = Kind::kFinish;
  if (IsOneOf(reason, {"length", "max_tokens", "max_output_tokens", "max_length", "model_length", "context_length",
                       "token_limit", "model_context_window_exceeded"})) {
    fragment.reason = FinishReason::kLength;
  } else if (IsOneOf(reason, {"content_filter", "content_filtered", "safety", "recitation", "language", "blocklist",
                              "prohibited_content", "spii", "refusal", "guardrail_intervened"})) {
    fragment.reason = FinishReason::kContentFilter;
  } else if (IsOneOf(reason, {"abort", "aborted", "cancelled", "canceled", "error", "insufficient_system_resource"})) {
    fragment.kind = Kind::kAbort;
  } else if (IsOneOf(reason, {"tool_calls", "tool_call", "tool_use", "function_call"})) {
    fragment.reason = FinishReason::kToolCalls;
  } else if (reason == "malformed_function_call") {
    fragment.kind = Kind::kUnsupported;
    fragment.bytes = "a malformed tool call";
  } else {
    fragment.reason = FinishReason::kStop;
  }
  return fragment;
}

// JSON has no infinity; OpenAI's server writes this instead.
constexpr double kLeastLogprob = -9999;
constexpr size_t kMaxTop = 20;

float ReadLogprob(const Json& value) {
  return value.is_number() ? static_cast<float>(std::clamp(value.get<double>(), kLeastLogprob, 0.0)) : 0;
}

// A token of a chat completion: its bytes, because the text may have a part of a character, or else its text.
TokenLogprob ReadToken(const Json& entry) {
  TokenLogprob token{ReadString(Member(entry, "token")), ReadLogprob(Member(entry, "logprob")), {}};
  const Json& bytes = Member(entry, "bytes");
  if (!bytes.is_array() || bytes.empty()) return token;
  std::string text;
  for (const Json& byte : bytes) {
    if (!byte.is_number_unsigned() || byte.get<uint64_t>() > 0xFF) return token;
    text.push_back(static_cast<char>(byte.get<uint64_t>()));
  }
  token.token = std::move(text);
  return token;
}

std::vector<TokenLogprob> ReadChatLogprobs(const Json& content) {
  std::vector<TokenLogprob> logprobs;
  for (const Json& entry : content) {
    if (!entry.is_object()) continue;
    logprobs.push_back(ReadToken(entry));
    for (const Json& each : Member(entry, "top_logprobs")) {
      if (each.is_object() && logprobs.back().top.size() < kMaxTop) logprobs.back().top.push_back(ReadToken(each));
    }
  }
  return logprobs;
}

// The parallel lists of a plain completion.
std::vector<TokenLogprob> ReadTextLogprobs(const Json& lists) {
  std::vector<TokenLogprob> logprobs;
  const Json& tokens = Member(lists, "tokens");
  const Json& numbers = Member(lists, "token_logprobs");
  const Json& tops = Member(lists, "top_logprobs");
  if (!tokens.is_array() || !numbers.is_array()) return logprobs;
  for (size_t i = 0; i < std::min(tokens.size(), numbers.size()); ++i) {
    logprobs.push_back({ReadString(tokens[i]), ReadLogprob(numbers[i]), {}});
    if (!tops.is_array() || i >= tops.size() || !tops[i].is_object()) continue;
    auto& top = logprobs.back().top;
    for (const auto& [token, number] : tops[i].items()) {
      if (top.size() < kMaxTop) top.push_back({token, ReadLogprob(number), {}});
    }
    std::sort(top.begin(), top.end(), [](const auto& a, const auto& b) { return a.logprob > b.logprob; });
  }
  return logprobs;
}

void DecodeLogprobs(std::vector<TokenLogprob>* logprobs) {
  for (TokenLogprob& each : *logprobs) {
    each.token = DecodeStandIns(each.token);
    DecodeLogprobs(&each.top);
  }
}

// Collects the fragments of one choice.
class ChoiceReader {
 public:
  using Kind = UpstreamFragment::Kind;

  ChoiceReader(const Json& choice, std::vector<UpstreamFragment>* out)
      : choice_(choice), index_(ReadIndex(Member(choice, "index"))), out_(out), begin_(out->size()) {}

  void Read() {
    // Some servers send a whole message as their only chunk.
    const Json& delta = Member(choice_, "delta");
    const Json& message = delta.is_object() ? delta : Member(choice_, "message");
    message.is_object() ? ReadMessage(message) : ReadContent(Member(choice_, "text"), Kind::kText);
    const bool finished = !ReadString(Member(choice_, "finish_reason")).empty();
    AddLogprobs(finished);
    if (out_->size() == begin_ && !finished) Add(Kind::kText, {});
    if (!finished) return;
    out_->push_back(ReadFinish(Member(choice_, "finish_reason")));
    out_->back().choice = index_;
  }

 private:
  static uint32_t ReadIndex(const Json& index) { return ReadUint32(index, index.is_null() ? 0 : kNoChoice); }

  void Add(Kind kind, std::string bytes) { out_->push_back({index_, kind, std::move(bytes)}); }

  void ReadMessage(const Json& message) {
    // Servers that send several names of the reasoning send the same text several times.
    for (const char* const name : {"reasoning_content", "reasoning", "thinking"}) {
      const Json& reasoning = Member(message, name);
      if (!reasoning.is_string() || reasoning == "") continue;
      Add(Kind::kReasoning, reasoning.get<std::string>());
      break;
    }
    ReadContent(Member(message, "content"), Kind::kText);
    ReadContent(Member(message, "refusal"), Kind::kRefusal);
    const Json& calls = Member(message, "tool_calls");
    if (calls.is_object()) ReadCall(calls, Member(calls, "function"));
    if (calls.is_array()) {
      for (const Json& call : calls) ReadCall(call, Member(call, "function"));
    } else if (!calls.is_object() && IsTruthy(calls)) {
      Add(Kind::kUnsupported, "tool calls that are not an array");
    }
    // The form before tool_calls.
    if (const Json& call = Member(message, "function_call"); IsTruthy(call)) ReadCall(call, call);
    for (const char* const name : {"audio", "images"}) {
      if (IsTruthy(Member(message, name))) Add(Kind::kUnsupported, name);
    }
  }

  // `function` has the name and the arguments.
  void ReadCall(const Json& call, const Json& function) {
    if (call.is_null()) return;
    const std::string type = ReadString(Member(call, "type"));
    if (!call.is_object() || !(type.empty() || type == "function")) {
      return Add(Kind::kUnsupported, absl::StrCat("a tool call of type '", type, "'"));
    }
    UpstreamFragment fragment{index_, Kind::kToolCall};
    const Json& index = Member(call, "index");
    if (index.is_number_unsigned()) fragment.call_index = ReadUint32(index, 0);
    fragment.call_id = ReadString(Member(call, "id"));
    fragment.call_name = ReadString(Member(function, "name"));
    const Json& arguments = Member(function, "arguments");
    // Some servers send the arguments as the object that they are.
    fragment.bytes = arguments.is_structured() ? arguments.dump(-1, ' ', false, Json::error_handler_t::replace)
                                               : ReadString(arguments);
    out_->push_back(std::move(fragment));
  }

  // A string, or an array of parts.
  void ReadContent(const Json& content, Kind kind) {
    if (content.is_null()) return;
    if (content.is_string()) {
      if (content != "") Add(kind, content.get<std::string>());
    } else if (content.is_array()) {
      for (const Json& part : content) ReadPart(part, kind);
    } else {
      Add(Kind::kUnsupported, "content that is neither a string nor an array");
    }
  }

  void ReadPart(const Json& part, Kind kind) {
    const std::string type = ReadString(Member(part, "type"));
    if (part.is_string()) {
      ReadContent(part, kind);
    } else if (IsOneOf(type, {"text", "output_text", "reasoning_text"})) {
      const Json& text = Member(part, "text");
      text.is_string() ? ReadContent(text, type == "reasoning_text" ? Kind::kReasoning : kind)
                       : Add(Kind::kUnsupported, "a text part without a text");
    } else if (type == "refusal") {
      ReadContent(Member(part, "refusal"), Kind::kRefusal);
    } else if (IsOneOf(type, {"thinking", "reasoning"})) {
      // Mistral nests its parts once.
      const Json& inner = Member(part, type.c_str());
      if (!inner.is_array()) return Add(Kind::kReasoning, ReadString(inner));
      for (const Json& each : inner) Add(Kind::kReasoning, ReadString(Member(each, "text")));
    } else {
      Add(Kind::kUnsupported, absl::StrCat("a content part of type '", type, "'"));
    }
  }

  // The log-probabilities belong to the text of the chunk, or else to its refusal. Those of a chunk that has only
  // reasoning or calls are dropped: clients expect those of text.
  void AddLogprobs(bool finished) {
    const Json& logprobs = Member(choice_, "logprobs");
    const Json& content = Member(logprobs, "content");
    const Json& refusal = Member(logprobs, "refusal");
    std::vector<TokenLogprob> read = content.is_array()   ? ReadChatLogprobs(content)
                                     : refusal.is_array() ? ReadChatLogprobs(refusal)
                                                          : ReadTextLogprobs(logprobs);
    if (read.empty()) return;
    const auto begin = out_->begin() + static_cast<std::ptrdiff_t>(begin_);
    const auto text = std::find_if(begin, out_->end(), [](const UpstreamFragment& each) {
      return each.kind == Kind::kText || each.kind == Kind::kRefusal;
    });
    if (text != out_->end()) {
      text->logprobs = std::move(read);
    } else if (begin == out_->end() || finished) {
      Add(Kind::kText, {});
      out_->back().logprobs = std::move(read);
    }
  }

  const Json& choice_;
  const uint32_t index_;
  std::vector<UpstreamFragment>* const out_;
  const size_t begin_;
};

int ReadStatus(const Json& code) {
  const uint32_t status = ReadUint32(code, 0);
  return status >= 400 && status <= 599 ? static_cast<int>(status) : 0;
}

// `error` is the value of a member of that name, not null.
UpstreamError ReadError(const Json& error) {
  if (error.is_string()) return {error.get<std::string>(), 0, {}, {}, {}};
  const Json& code = Member(error, "code");
  return {ReadString(Member(error, "message")), ReadStatus(code), ReadString(Member(error, "type")), ReadString(code),
          ReadString(Member(error, "param"))};
}

// "body.max_tokens", of FastAPI.
std::string ReadLocation(const Json& loc) {
  std::string path;
  if (!loc.is_array()) return path;
  for (const Json& each : loc) {
    const std::string step = each.is_number_unsigned() ? std::to_string(each.get<uint64_t>()) : ReadString(each);
    if (!step.empty()) absl::StrAppend(&path, path.empty() ? "" : ".", step);
  }
  return path;
}

// FastAPI's own errors, {"detail":"..."} or {"detail":[{"loc":["body","max_tokens"],"msg":"...","type":"..."}]}.
UpstreamError ReadDetail(const Json& detail) {
  constexpr std::string_view kBody = "body.";
  UpstreamError error;
  if (!detail.is_array()) return ReadError(detail);
  for (const Json& each : detail) {
    const std::string path = ReadLocation(Member(each, "loc"));
    absl::StrAppend(&error.message, error.message.empty() ? "" : "; ", path, path.empty() ? "" : ": ",
                    ReadString(Member(each, "msg")));
    if (error.param.empty() && path.starts_with(kBody)) error.param = path.substr(kBody.size());
    if (error.code.empty()) error.code = ReadString(Member(each, "type"));
  }
  return error;
}

// Absent if it has no tokens, as the first chunks of some servers have it.
std::optional<Usage> ReadUsage(const Json& usage) {
  Usage read;
  read.prompt_tokens = ReadUint32(Member(usage, "prompt_tokens"), 0);
  read.completion_tokens = ReadUint32(Member(usage, "completion_tokens"), 0);
  read.cached_prompt_tokens = ReadUint32(Member(Member(usage, "prompt_tokens_details"), "cached_tokens"), 0);
  read.reasoning_tokens = ReadUint32(Member(Member(usage, "completion_tokens_details"), "reasoning_tokens"), 0);
  if (read.prompt_tokens == 0 && read.completion_tokens == 0) return std::nullopt;
  return read;
}

}  // namespace

absl::StatusOr<UpstreamChunk> ParseUpstreamChunk(std::string_view data) {
  if (auto plain = ParsePlainChunk(data)) {
    UpstreamChunk chunk;
    const auto kind = plain->is_reasoning ? UpstreamFragment::Kind::kReasoning : UpstreamFragment::Kind::kText;
    chunk.fragments.push_back({.choice = plain->choice, .kind = kind, .bytes = std::move(plain->text)});
    return chunk;
  }
  return ParseAnyUpstreamChunk(data);
}

absl::StatusOr<UpstreamChunk> ParseAnyUpstreamChunk(std::string_view data) {
  Json json = Json::parse(data, nullptr, false);
  const bool with_stand_ins = json.is_discarded();
  if (with_stand_ins) json = Json::parse(EncodeStandIns(data), nullptr, false);
  if (!json.is_object()) return absl::InvalidArgumentError("an event that is not a JSON object");

  UpstreamChunk chunk;
  chunk.id = ReadString(Member(json, "id"));
  if (const Json& error = Member(json, "error"); IsTruthy(error)) {
    chunk.error = ReadError(error);
  } else if (Member(json, "object") == "error") {
    chunk.error = ReadError(json);
  }
  if (const Json& choices = Member(json, "choices"); choices.is_array()) {
    for (const Json& choice : choices) {
      if (choice.is_object()) ChoiceReader(choice, &chunk.fragments).Read();
    }
  }
  for (UpstreamFragment& fragment : chunk.fragments) {
    if (!with_stand_ins) break;
    fragment.bytes = DecodeStandIns(fragment.bytes);
    fragment.call_id = DecodeStandIns(fragment.call_id);
    fragment.call_name = DecodeStandIns(fragment.call_name);
    DecodeLogprobs(&fragment.logprobs);
  }
  chunk.usage = ReadUsage(Member(json, "usage"));
  return chunk;
}

UpstreamError ParseUpstreamError(std::string_view body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return {};
  if (const Json& error = Member(json, "error"); IsTruthy(error)) return ReadError(error);
  if (const Json& detail = Member(json, "detail"); IsTruthy(detail)) return ReadDetail(detail);
  return ReadError(json);
}

absl::StatusOr<UpstreamModel> ParseFirstModel(std::string_view body) {
  const Json json = Json::parse(body, nullptr, false);
  const Json& data = Member(json, "data");
  if (!json.is_object() || !json.contains("data") || !(data.is_array() || data.is_null())) {
    return absl::InvalidArgumentError("not a list of models");
  }
  if (data.empty()) return absl::NotFoundError("the list of models is empty");
  UpstreamModel model{ReadString(Member(data[0], "id")), ReadUint32(Member(data[0], "max_model_len"), 0)};
  if (model.id.empty()) return absl::InvalidArgumentError("the first model has no id");
  return model;
}

}  // namespace runnel::inference
