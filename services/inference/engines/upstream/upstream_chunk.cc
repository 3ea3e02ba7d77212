#include "services/inference/engines/upstream/upstream_chunk.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "services/inference/engines/utf8.h"

namespace runnel::inference {
namespace {

using Json = nlohmann::json;

// The choice of a piece whose index is invalid.
constexpr uint32_t kNoChoice = std::numeric_limits<uint32_t>::max();

// The JSON parser accepts UTF-8 only. Other bytes, and halves of surrogate pairs, pass through it as the characters
// U+10FF80 to U+10FFFF, each of which replaces one byte. This is done only for events that the parser has rejected, so
// these characters (private use, at the end of the last plane) are mistaken for bytes only in such an event.
constexpr std::string_view kStandInHead = "\xF4\x8F";

void AppendStandIn(uint8_t byte, std::string* out) {
  out->append(kStandInHead);
  out->push_back(static_cast<char>(0xBC | (byte >> 6)));
  out->push_back(static_cast<char>(0x80 | (byte & 0x3F)));
}

std::string DecodeStandIns(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t at = std::min(text.find(kStandInHead), text.size());
    out.append(text.substr(0, at));
    text.remove_prefix(at);
    if (text.size() < 4) {
      out.append(text);
      break;
    }
    const auto third = static_cast<uint8_t>(text[2]);
    if (third >= 0xBE) {
      out.push_back(static_cast<char>(((third & 0x03) << 6) | (static_cast<uint8_t>(text[3]) & 0x3F)));
    } else {
      out.append(text.substr(0, 4));
    }
    text.remove_prefix(4);
  }
  return out;
}

// The code unit of the \uXXXX that `text` begins with; -1 if it begins with something else.
int ReadEscape(std::string_view text) {
  if (text.size() < 6 || !text.starts_with("\\u")) return -1;
  int unit = 0;
  for (const char c : text.substr(2, 4)) {
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(c))) return -1;
    const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
    unit = unit * 16 + digit;
  }
  return unit;
}

bool IsHighSurrogate(int unit) { return unit >= 0xD800 && unit <= 0xDBFF; }
bool IsLowSurrogate(int unit) { return unit >= 0xDC00 && unit <= 0xDFFF; }

// Copies the escape that `text` begins with, a half of a pair as stand-ins. Returns how much of `text` it took.
size_t CopyEscape(std::string_view text, std::string* out) {
  const int unit = ReadEscape(text);
  const bool pair = IsHighSurrogate(unit) && IsLowSurrogate(ReadEscape(text.substr(6)));
  if (!pair && (IsHighSurrogate(unit) || IsLowSurrogate(unit))) {
    AppendStandIn(0xED, out);
    AppendStandIn(static_cast<uint8_t>(0x80 | ((unit >> 6) & 0x3F)), out);
    AppendStandIn(static_cast<uint8_t>(0x80 | (unit & 0x3F)), out);
    return 6;
  }
  const size_t length = pair ? 12 : unit >= 0 ? 6 : 2;
  out->append(text.substr(0, length));
  return std::min(length, text.size());
}

std::string EncodeStandIns(std::string_view data) {
  std::string out;
  out.reserve(data.size() + 64);
  while (!data.empty()) {
    size_t length = 1;
    if (data.front() == '\\') {
      length = CopyEscape(data, &out);
    } else if (length = Utf8CharLength(data); length > 0) {
      out.append(data.substr(0, length));
    } else {
      AppendStandIn(static_cast<uint8_t>(data.front()), &out);
      length = 1;
    }
    data.remove_prefix(length);
  }
  return out;
}

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

void ReadFinish(const Json& value, UpstreamPiece* piece) {
  const std::string reason = ReadString(value);
  piece->finished = !reason.empty();
  piece->aborted = reason == "abort" || reason == "error";
  piece->reason = !piece->finished             ? FinishReason::kNone
                  : reason == "length"         ? FinishReason::kLength
                  : reason == "content_filter" ? FinishReason::kContentFilter
                                               : FinishReason::kStop;
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

void DecodeStandIns(std::vector<TokenLogprob>* logprobs) {
  for (TokenLogprob& each : *logprobs) {
    each.token = DecodeStandIns(each.token);
    DecodeStandIns(&each.top);
  }
}

UpstreamPiece ReadChoice(const Json& choice) {
  UpstreamPiece piece;
  const Json& index = Member(choice, "index");
  piece.choice = ReadUint32(index, index.is_null() ? 0 : kNoChoice);
  const Json& delta = Member(choice, "delta");
  piece.bytes = ReadString(delta.is_object() ? Member(delta, "content") : Member(choice, "text"));
  const Json& logprobs = Member(choice, "logprobs");
  const Json& content = Member(logprobs, "content");
  piece.logprobs = content.is_array() ? ReadChatLogprobs(content) : ReadTextLogprobs(logprobs);
  ReadFinish(Member(choice, "finish_reason"), &piece);
  return piece;
}

int ReadStatus(const Json& code) {
  const uint32_t status = ReadUint32(code, 0);
  return status >= 400 && status <= 599 ? static_cast<int>(status) : 0;
}

// `error` is the value of a member of that name, not null.
UpstreamError ReadError(const Json& error) {
  if (error.is_string()) return {error.get<std::string>(), 0};
  return {ReadString(Member(error, "message")), ReadStatus(Member(error, "code"))};
}

bool IsTruthy(const Json& value) {
  return !value.is_null() && value != false && value != "" && !(value.is_object() && value.empty());
}

}  // namespace

absl::StatusOr<UpstreamChunk> ParseUpstreamChunk(std::string_view data) {
  Json json = Json::parse(data, nullptr, false);
  const bool with_stand_ins = json.is_discarded();
  if (with_stand_ins) json = Json::parse(EncodeStandIns(data), nullptr, false);
  if (!json.is_object()) return absl::InvalidArgumentError("an event that is not a JSON object");

  UpstreamChunk chunk;
  if (const Json& error = Member(json, "error"); IsTruthy(error)) {
    chunk.error = ReadError(error);
  } else if (Member(json, "object") == "error") {
    chunk.error = ReadError(json);
  }
  if (const Json& choices = Member(json, "choices"); choices.is_array()) {
    for (const Json& choice : choices) {
      if (!choice.is_object()) continue;
      chunk.pieces.push_back(ReadChoice(choice));
      if (!with_stand_ins) continue;
      chunk.pieces.back().bytes = DecodeStandIns(chunk.pieces.back().bytes);
      DecodeStandIns(&chunk.pieces.back().logprobs);
    }
  }
  if (const Json& usage = Member(json, "usage"); usage.is_object()) {
    chunk.usage =
        Usage{ReadUint32(Member(usage, "prompt_tokens"), 0), ReadUint32(Member(usage, "completion_tokens"), 0),
              ReadUint32(Member(Member(usage, "prompt_tokens_details"), "cached_tokens"), 0)};
  }
  return chunk;
}

UpstreamError ParseUpstreamError(std::string_view body) {
  const Json json = Json::parse(body, nullptr, false);
  if (!json.is_object()) return {};
  if (const Json& error = Member(json, "error"); IsTruthy(error)) return ReadError(error);
  if (const Json& detail = Member(json, "detail"); detail.is_string()) return {detail.get<std::string>(), 0};
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
