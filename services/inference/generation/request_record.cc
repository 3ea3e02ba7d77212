#include "services/inference/generation/request_record.h"

#include <simdjson.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <type_traits>
#include <unordered_set>
#include <utility>

#include "absl/strings/ascii.h"
#include "services/base/call_name.h"
#include "services/base/request_limits.h"
#include "services/inference/generation/json_object_checker.h"
#include "services/inference/generation/packed_number.h"

namespace runnel::inference {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kCheckBytes = 4;
// A detach timeout is at most 24 hours, and the service's default may be more.
constexpr uint64_t kMaxTimeoutNanos = uint64_t{1} << 62;

uint32_t CheckOf(std::string_view bytes) {
  return static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

// Bytes that need not be text.
struct Opaque {
  std::string* bytes;
};

// Writes a request. Field() of the Reader below reads what the same call of this one has written.
class Writer {
 public:
  static constexpr bool kReads = false;
  explicit Writer(std::string* out) : out_(out) {}

  void Number(uint64_t* number) { PackNumber(*number, out_); }
  void Field(uint32_t* number) { PackNumber(*number, out_); }
  void Field(bool* flag) { out_->push_back(*flag ? 1 : 0); }
  void Field(float* number) {
    const auto bits = std::bit_cast<uint32_t>(*number);
    for (int shift = 0; shift < 32; shift += 8) out_->push_back(static_cast<char>(bits >> shift & 0xFF));
  }
  void Field(std::string* text) {
    PackNumber(text->size(), out_);
    out_->append(*text);
  }
  void Field(Opaque opaque) { Field(opaque.bytes); }
  template <typename Enum>
  void Enumeration(Enum* value, Enum /*last*/) {
    out_->push_back(static_cast<char>(*value));
  }
  size_t Count(size_t count, size_t /*max*/) {
    PackNumber(count, out_);
    return count;
  }

 private:
  std::string* const out_;
};

// After the first error, ok() is false and every read sets nothing.
class Reader {
 public:
  static constexpr bool kReads = true;
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  bool ok() const { return ok_; }
  bool at_end() const { return rest_.empty(); }

  void Number(uint64_t* number) { *number = Take(UINT64_MAX); }
  void Field(uint32_t* number) { *number = static_cast<uint32_t>(Take(UINT32_MAX)); }
  void Field(bool* flag) { *flag = Byte(1) == 1; }
  void Field(float* number) {
    uint32_t bits = 0;
    for (int shift = 0; shift < 32; shift += 8) bits |= uint32_t{Byte(0xFF)} << shift;
    *number = std::bit_cast<float>(bits);
    if (!std::isfinite(*number)) ok_ = false;
  }
  void Field(std::string* text) {
    Field(Opaque{text});
    if (!simdjson::validate_utf8(text->data(), text->size())) ok_ = false;
  }
  void Field(Opaque opaque) {
    const size_t size = Take(UINT64_MAX);
    ok_ = ok_ && size <= rest_.size();
    if (!ok_) return;
    *opaque.bytes = std::string(rest_.substr(0, size));
    rest_.remove_prefix(size);
  }
  template <typename Enum>
  void Enumeration(Enum* value, Enum last) {
    *value = static_cast<Enum>(Byte(static_cast<uint8_t>(last)));
  }
  // Each item takes at least a byte.
  size_t Count(size_t /*count*/, size_t max) {
    const size_t count = Take(std::min(max, rest_.size()));
    return ok_ ? count : 0;
  }

 private:
  uint8_t Byte(uint8_t max) {
    if (rest_.empty() || static_cast<uint8_t>(rest_.front()) > max) ok_ = false;
    if (!ok_) return 0;
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return byte;
  }
  uint64_t Take(uint64_t max) {
    uint64_t number = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = Byte(0xFF);
      // The tenth byte has a single bit.
      if (!ok_ || (shift == 63 && byte > 1)) break;
      number |= uint64_t{byte & 0x7Fu} << shift;
      if (byte >= 0x80) continue;
      if (number <= max) return number;
      break;
    }
    ok_ = false;
    return 0;
  }

  std::string_view rest_;
  bool ok_ = true;
};

// The layout: each function names all fields of its struct, so that a new one does not compile until it is here.

template <typename Archive, typename T>
void Optional(Archive& archive, std::optional<T>* value) {
  bool present = value->has_value();
  archive.Field(&present);
  if (!present) return;
  if (Archive::kReads) value->emplace();
  archive.Field(&**value);
}

template <typename Archive, typename T, typename Each>
void List(Archive& archive, std::vector<T>* items, size_t max, const Each& each) {
  const size_t count = archive.Count(items->size(), max);
  if (!Archive::kReads) {
    for (T& item : *items) each(&item);
    return;
  }
  for (size_t i = 0; i < count; ++i) each(&items->emplace_back());
}

template <typename Archive, typename Key, typename Value>
void Pairs(Archive& archive, std::map<Key, Value>* pairs, size_t max) {
  const size_t count = archive.Count(pairs->size(), max);
  if (!Archive::kReads) {
    for (auto& [key, value] : *pairs) {
      Key copy = key;
      archive.Field(&copy);
      archive.Field(&value);
    }
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    Key key{};
    archive.Field(&key);
    archive.Field(&(*pairs)[key]);
  }
}

template <typename Archive>
void Message(Archive& archive, ChatMessage* message) {
  auto& [role, content, parts, tool_calls, reasoning, tool_call_id] = *message;
  archive.Enumeration(&role, ChatRole::kTool);
  archive.Field(&content);
  List(archive, &parts, base::kMaxContentParts, [&](ContentPart* part) {
    auto& [kind, value, detail] = *part;
    archive.Enumeration(&kind, ContentPart::Kind::kImage);
    archive.Field(&value);
    archive.Field(&detail);
  });
  List(archive, &tool_calls, base::kMaxToolCalls, [&](CalledTool* call) {
    auto& [id, name, arguments] = *call;
    archive.Field(&id);
    archive.Field(&name);
    archive.Field(&arguments);
  });
  archive.Field(&reasoning);
  archive.Field(&tool_call_id);
}

template <typename Archive>
void SamplingFields(Archive& archive, Sampling* sampling) {
  auto& [temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, logit_bias] = *sampling;
  for (auto* each : {&temperature, &top_p, &min_p, &presence_penalty, &frequency_penalty}) Optional(archive, each);
  Optional(archive, &top_k);
  Pairs(archive, &logit_bias, base::kMaxLogitBiases);
}

template <typename Archive>
void Tools(Archive& archive, std::vector<Tool>* tools, std::optional<ToolChoice>* choice) {
  List(archive, tools, base::kMaxTools, [&](Tool* tool) {
    auto& [name, description, parameters, strict] = *tool;
    archive.Field(&name);
    archive.Field(&description);
    archive.Field(&parameters);
    Optional(archive, &strict);
  });
  bool present = choice->has_value();
  archive.Field(&present);
  if (!present) return;
  if (Archive::kReads) choice->emplace();
  auto& [mode, name, allowed] = **choice;
  archive.Enumeration(&mode, ToolChoice::Mode::kNamed);
  archive.Field(&name);
  List(archive, &allowed, base::kMaxTools, [&](std::string* each) { archive.Field(each); });
}

// In nanoseconds; the highest number stands for InfiniteDuration.
template <typename Archive>
void Timeout(Archive& archive, absl::Duration* timeout) {
  uint64_t nanos = *timeout == absl::InfiniteDuration()
                       ? UINT64_MAX
                       : std::min<uint64_t>(kMaxTimeoutNanos, absl::ToInt64Nanoseconds(*timeout));
  archive.Number(&nanos);
  *timeout = nanos > kMaxTimeoutNanos ? absl::InfiniteDuration() : absl::Nanoseconds(static_cast<int64_t>(nanos));
}

template <typename Archive>
void Request(Archive& archive, GenerationRequest* request) {
  auto& [model, messages, prompt, sampling, seed, seed_given, max_tokens, token_limit_name, choice_count, stop,
         top_logprobs, output_format, tools, tool_choice, parallel_tool_calls, reasoning_effort, detach_timeout,
         request_id, principal, metadata, annotation, kept_input, discard_stored_log, extra_fields] = *request;
  archive.Field(&model);
  List(archive, &messages, SIZE_MAX, [&](ChatMessage* message) { Message(archive, message); });
  archive.Field(&prompt);
  SamplingFields(archive, &sampling);
  archive.Number(&seed);
  archive.Field(&seed_given);
  Optional(archive, &max_tokens);
  archive.Enumeration(&token_limit_name, TokenLimitName::kMaxCompletionTokens);
  archive.Field(&choice_count);
  List(archive, &stop, base::kMaxStops, [&](std::string* each) { archive.Field(each); });
  Optional(archive, &top_logprobs);
  auto& [kind, json_schema] = output_format;
  archive.Enumeration(&kind, OutputFormat::Kind::kJsonSchema);
  archive.Field(&json_schema);
  Tools(archive, &tools, &tool_choice);
  Optional(archive, &parallel_tool_calls);
  archive.Field(&reasoning_effort);
  Timeout(archive, &detach_timeout);
  archive.Field(&request_id);
  archive.Field(&principal);
  Pairs(archive, &metadata, base::kMaxMetadataPairs);
  archive.Field(&annotation);
  archive.Field(Opaque{&kept_input});
  archive.Field(&discard_stored_log);
  Pairs(archive, &extra_fields, base::kMaxExtraFields);
}

template <typename T>
bool InRange(const std::optional<T>& value, T least, T most) {
  return !value.has_value() || (*value >= least && *value <= most);
}

// What engines rely on without checking it again. A schema is walked by code that is recursive.
bool IsRunnable(const GenerationRequest& request) {
  const Sampling& sampling = request.sampling;
  bool good = !request.model.empty() && request.messages.empty() != request.prompt.empty() &&
              request.choice_count >= 1 && request.choice_count <= base::kMaxChoices &&
              InRange(request.max_tokens, 1u, UINT32_MAX) && InRange(request.top_logprobs, 0u, base::kMaxTopLogprobs) &&
              InRange(sampling.temperature, 0.0f, 2.0f) && InRange(sampling.top_p, 0.0f, 1.0f) &&
              InRange(sampling.min_p, 0.0f, 1.0f) && InRange(sampling.top_k, 1u, 1'000'000u) &&
              InRange(sampling.presence_penalty, -2.0f, 2.0f) && InRange(sampling.frequency_penalty, -2.0f, 2.0f) &&
              request.output_format.json_schema.size() <= base::kMaxSchemaBytes;
  for (const auto& [token, bias] : sampling.logit_bias) good = good && std::abs(bias) <= base::kMaxLogitBias;
  for (const std::string& stop : request.stop) good = good && !stop.empty() && stop.size() <= base::kMaxStopBytes;
  const auto is_object = [](const std::string& json) {
    JsonObjectChecker checker(base::kMaxSchemaDepth);
    checker.Add(json);
    return checker.complete();
  };
  if (request.output_format.kind == OutputFormat::Kind::kJsonSchema) {
    const absl::string_view schema = absl::StripAsciiWhitespace(request.output_format.json_schema);
    good = good && (schema == "true" || schema == "false" || is_object(request.output_format.json_schema));
  }
  std::unordered_set<std::string_view> names;
  for (const Tool& tool : request.tools) {
    good = good && base::IsValidCallName(tool.name) && names.insert(tool.name).second &&
           tool.parameters.size() <= base::kMaxToolSchemaBytes &&
           (tool.parameters.empty() || is_object(tool.parameters));
  }
  if (!request.tool_choice.has_value()) return good;
  const ToolChoice& choice = *request.tool_choice;
  good = good && (choice.mode == ToolChoice::Mode::kNamed ? names.contains(choice.name) : choice.name.empty());
  for (const std::string& name : choice.allowed) good = good && names.contains(name);
  return good;
}

}  // namespace

std::string EncodeRequest(const GenerationRequest& request) {
  GenerationRequest copy = request;  // the layout is one function for both directions
  std::string bytes(1, static_cast<char>(kVersion));
  Writer writer(&bytes);
  Request(writer, &copy);
  const uint32_t check = CheckOf(bytes);
  for (size_t i = 0; i < kCheckBytes; ++i) bytes.push_back(static_cast<char>(check >> 8 * i & 0xFF));
  return bytes;
}

absl::StatusOr<GenerationRequest> DecodeRequest(std::string_view bytes) {
  if (bytes.empty()) return absl::DataLossError("the stored request is missing");
  if (const auto version = static_cast<uint8_t>(bytes.front()); version > kVersion) {
    return absl::UnimplementedError("the stored request was written by a newer release");
  }
  const absl::Status damaged = absl::DataLossError("the stored request is damaged");
  if (bytes.size() <= kCheckBytes) return damaged;
  const std::string_view body = bytes.substr(0, bytes.size() - kCheckBytes);
  uint32_t check = 0;
  for (size_t i = 0; i < kCheckBytes; ++i) {
    check |= uint32_t{static_cast<uint8_t>(bytes[body.size() + i])} << 8 * i;
  }
  if (body.front() != static_cast<char>(kVersion) || check != CheckOf(body)) return damaged;
  Reader reader(body.substr(1));
  GenerationRequest request;
  Request(reader, &request);
  if (!reader.ok() || !reader.at_end() || !IsRunnable(request)) return damaged;
  return request;
}

}  // namespace runnel::inference
