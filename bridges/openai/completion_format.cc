#include "bridges/openai/completion_format.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_cat.h"
#include "bridges/openai/chat_parts.h"
#include "bridges/openai/openai_json.h"
#include "bridges/wire/event_json.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

constexpr size_t kIdPrefixBytes = 4;  // `gen_`
constexpr std::string_view kDone = "data: [DONE]\n\n";
constexpr std::span<const v1::TokenLogprob> kNoLogprobs;

// {"id":..,"object":..,"created":..,"model":..,"system_fingerprint":..,"choices":[
std::string Head(std::string_view gen, std::string_view object, bool chat, const v1::Started& started) {
  std::string head = absl::StrCat("{\"id\":\"", chat ? "chatcmpl-" : "cmpl-", base::ToAbsl(gen.substr(kIdPrefixBytes)),
                                  "\",\"object\":\"", base::ToAbsl(object),
                                  "\",\"created\":", started.created_at().seconds(), ",\"model\":");
  bridge::AppendJsonString(started.model(), &head);
  if (!started.fingerprint().empty()) {
    head += ",\"system_fingerprint\":";
    bridge::AppendJsonString(started.fingerprint(), &head);
  }
  head += ",\"choices\":[";
  return head;
}

// Null if `done` lacks the choice.
const v1::ChoiceEnd* EndOf(const v1::Done& done, uint32_t choice) {
  const auto end = std::find_if(done.choices().begin(), done.choices().end(),
                                [choice](const v1::ChoiceEnd& each) { return each.index() == choice; });
  return end == done.choices().end() ? nullptr : &*end;
}

void AppendFinishReason(const v1::ChoiceEnd* end, std::string* out) {
  out->push_back('"');
  out->append(CompletionFinishReason(end));
  out->push_back('"');
}

void AppendErrorChunk(const bridge::HttpError& error, std::string* out) {
  out->append("data: ").append(bridge::ErrorBody(error)).append("\n\n").append(kDone);
}

bool WasCancelled(const v1::Done& done) {
  return std::any_of(done.choices().begin(), done.choices().end(),
                     [](const v1::ChoiceEnd& each) { return each.finish_reason() == v1::FINISH_REASON_CANCELLED; });
}

bool HasCallOrRefusal(const v1::Done& done) {
  const auto matches = [](const v1::PartEnd& part) {
    return part.kind() == v1::PART_KIND_TOOL_CALL || part.kind() == v1::PART_KIND_REFUSAL;
  };
  return std::any_of(done.choices().begin(), done.choices().end(), [&](const v1::ChoiceEnd& each) {
    return std::any_of(each.parts().begin(), each.parts().end(), matches);
  });
}

}  // namespace

std::optional<bridge::HttpError> ErrorOfDone(const v1::Done& done, bool chat) {
  if (WasCancelled(done)) return ErrorOfCancelled();
  if (chat || !HasCallOrRefusal(done)) return std::nullopt;
  v1::Failed failed;
  failed.set_code("unsupported_output");
  failed.set_message("the model has called a tool or refused: use /v1/chat/completions");
  return ErrorOfFailed(failed);
}

void CompletionEncoder::Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) {
  switch (event.payload_case()) {
    case v1::GenerationEvent::kStarted:
      return EncodeStarted(gen, event.started(), out);
    case v1::GenerationEvent::kDelta:
      return EncodeDelta(event.delta(), out);
    case v1::GenerationEvent::kDone:
      if (const auto error = ErrorOfDone(event.done(), shape_.chat)) return AppendErrorChunk(*error, out);
      return EncodeDone(event.done(), out);
    case v1::GenerationEvent::kFailed:
      return AppendErrorChunk(ErrorOfFailed(event.failed()), out);
    case v1::GenerationEvent::kGap:
    case v1::GenerationEvent::PAYLOAD_NOT_SET:
      return;
  }
}

bool CompletionEncoder::EncodeGap(std::string_view, v1::GenerationEvent& event, std::string* out) {
  const std::optional<std::vector<v1::Delta>> rest = sent_.RestOf(event.gap());
  if (!rest.has_value()) {
    AppendErrorChunk(ErrorOfLostOutput(), out);
    return false;
  }
  for (const v1::Delta& delta : *rest) EncodeDelta(delta, out);
  return true;
}

bridge::HttpError CompletionEncoder::ErrorOf(const absl::Status& status, bool repeatable) const {
  return OpenAiErrorOf(status, shape_.chat ? OpenAiApi::kChat : OpenAiApi::kCompletions, repeatable);
}

std::optional<bridge::HttpError> CompletionEncoder::ErrorOfEnd(const v1::GenerationEvent& event) const {
  if (event.has_failed()) return ErrorOfFailed(event.failed());
  return event.has_done() ? ErrorOfDone(event.done(), shape_.chat) : std::nullopt;
}

void CompletionEncoder::EncodeStarted(std::string_view gen, const v1::Started& started, std::string* out) {
  // After a gap the log may be read from its beginning.
  if (!head_.empty()) return;
  head_ = "data: " + Head(gen, shape_.chat ? "chat.completion.chunk" : "text_completion", shape_.chat, started);
  if (!shape_.chat) return;
  for (uint32_t choice = 0; choice < choice_count_; ++choice) {
    BeginChunk(choice, out);
    out->append("\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}");
    EndChunk(out);
  }
}

void CompletionEncoder::EncodeDelta(const v1::Delta& delta, std::string* out) {
  if (delta.choice() >= choice_count_) return;
  sent_.Add(delta);
  if (delta.kind() != v1::PART_KIND_TEXT) return EncodePart(delta, out);
  if (delta.text().empty() && delta.logprobs().empty()) return;
  BeginChunk(delta.choice(), out);
  out->append(shape_.chat ? "\"delta\":{\"content\":" : "\"text\":");
  bridge::AppendJsonString(delta.text(), out);
  out->append(shape_.chat ? "},\"logprobs\":" : ",\"logprobs\":");
  if (shape_.chat) {
    AppendChatLogprobs(delta.logprobs(), kNoLogprobs, out);
  } else {
    AppendLegacyLogprobs(delta.logprobs(), &offsets_[delta.choice()], out);
  }
  out->append(",\"finish_reason\":null}");
  EndChunk(out);
}

void CompletionEncoder::EncodePart(const v1::Delta& delta, std::string* out) {
  if (!shape_.chat) return;
  const bool empty = delta.content().empty();
  const auto chunk = [&](auto append_delta) {
    BeginChunk(delta.choice(), out);
    append_delta(&out->append("\"delta\":"));
    out->append(",\"logprobs\":");
    AppendChatLogprobs(kNoLogprobs, delta.logprobs(), out);
    out->append(",\"finish_reason\":null}");
    EndChunk(out);
  };
  switch (delta.kind()) {
    case v1::PART_KIND_REASONING:
      if (!empty) chunk([&](std::string* to) { AppendReasoningDelta(delta.content(), to); });
      return;
    case v1::PART_KIND_REFUSAL:
      if (!empty || !delta.logprobs().empty()) {
        chunk([&](std::string* to) { AppendRefusalDelta(delta.content(), to); });
      }
      return;
    case v1::PART_KIND_TOOL_CALL: {
      if (calls_.empty()) calls_.resize(choice_count_);
      StreamedCalls& calls = calls_[delta.choice()];
      if (delta.has_call()) calls.Hold(delta.part(), delta.call());
      if (empty) return;
      EncodeOpenings(delta.choice(), calls.ReleaseFor(delta.part()), out);
      chunk([&](std::string* to) { AppendArgumentsDelta(calls.NumberOf(delta.part()), delta.content(), to); });
      return;
    }
    default:  // a kind of a newer service, which clients cannot know
      return;
  }
}

void CompletionEncoder::EncodeOpenings(uint32_t choice, const std::vector<StreamedCalls::Opening>& openings,
                                       std::string* out) const {
  for (const StreamedCalls::Opening& opening : openings) {
    BeginChunk(choice, out);
    AppendCallDelta(opening.number, opening.call, &out->append("\"delta\":"));
    out->append(",\"logprobs\":null,\"finish_reason\":null}");
    EndChunk(out);
  }
}

void CompletionEncoder::EncodeDone(const v1::Done& done, std::string* out) {
  for (uint32_t choice = 0; choice < choice_count_; ++choice) {
    if (!calls_.empty()) EncodeOpenings(choice, calls_[choice].ReleaseComplete(EndOf(done, choice)), out);
    BeginChunk(choice, out);
    out->append(shape_.chat ? "\"delta\":{}" : "\"text\":\"\"").append(",\"logprobs\":null,\"finish_reason\":");
    AppendFinishReason(EndOf(done, choice), out);
    out->push_back('}');
    EndChunk(out);
  }
  if (shape_.include_usage) {
    out->append(head_).append("],\"usage\":");
    AppendChatUsage(done.usage(), out);
    out->append("}\n\n");
  }
  out->append(kDone);
}

void CompletionEncoder::BeginChunk(uint32_t choice, std::string* out) const {
  absl::StrAppend(out, head_, "{\"index\":", choice, ",");
}

void CompletionEncoder::EndChunk(std::string* out) const {
  out->append(shape_.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

std::string CompletionJson(std::string_view gen, const CompletionShape& shape, uint32_t choice_count,
                           const bridge::CollectedGeneration& collected) {
  static const bridge::CollectedGeneration::Choice kEmpty;
  std::string json = Head(gen, shape.chat ? "chat.completion" : "text_completion", shape.chat, collected.started);
  for (uint32_t i = 0; i < choice_count; ++i) {
    const bridge::CollectedGeneration::Choice& choice = i < collected.choices.size() ? collected.choices[i] : kEmpty;
    const v1::ChoiceEnd* end = EndOf(*collected.done, i);
    absl::StrAppend(&json, i == 0 ? "" : ",", "{\"index\":", i,
                    shape.chat ? ",\"message\":{\"role\":\"assistant\"," : ",\"text\":");
    shape.chat ? AppendMessage(choice, end, &json) : bridge::AppendJsonString(choice.text, &json);
    json += shape.chat ? "},\"logprobs\":" : ",\"logprobs\":";
    uint64_t offset = 0;
    shape.chat ? AppendChatLogprobs(choice.logprobs, choice.refusal_logprobs, &json)
               : AppendLegacyLogprobs(choice.logprobs, &offset, &json);
    json += ",\"finish_reason\":";
    AppendFinishReason(end, &json);
    json += "}";
  }
  json += "],\"usage\":";
  AppendChatUsage(collected.done->usage(), &json);
  json += "}";
  return json;
}

}  // namespace runnel::openai
