#include "bridges/openai/responses_format.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bridges/base/no_such_generation.h"
#include "bridges/openai/openai_error.h"
#include "bridges/openai/openai_json.h"
#include "bridges/wire/event_json.h"
#include "services/base/grpc_status.h"
#include "services/base/strings.h"

namespace runnel::openai {
namespace {

using base::ToAbsl;
using bridge::AppendJsonString;

constexpr size_t kIdPrefixBytes = 4;  // `gen_`

absl::string_view Random(const ResponseState& state) {
  return ToAbsl(std::string_view(state.generation_id).substr(kIdPrefixBytes));
}

std::string Quoted(std::string_view text) {
  std::string json;
  AppendJsonString(text, &json);
  return json;
}

std::string UsageJson(const v1::Usage& usage) {
  return absl::StrCat("{\"input_tokens\":", usage.prompt_tokens(),
                      ",\"input_tokens_details\":{\"cached_tokens\":", usage.cached_prompt_tokens(),
                      ",\"cache_write_tokens\":0},\"output_tokens\":", usage.completion_tokens(),
                      ",\"output_tokens_details\":{\"reasoning_tokens\":", usage.reasoning_tokens(),
                      "},\"total_tokens\":", uint64_t{usage.prompt_tokens()} + usage.completion_tokens(), "}");
}

void AppendEvent(std::string_view type, uint64_t number, std::string_view rest, std::string* out) {
  absl::StrAppend(out, "event: ", ToAbsl(type), "\ndata: {\"type\":\"", ToAbsl(type), "\",\"sequence_number\":", number,
                  ToAbsl(rest), "}\n\n");
}

// Whether `done` proves that the call in this part is complete.
bool IsComplete(const v1::Done& done, uint32_t part) {
  if (done.choices_size() == 0) return false;
  const auto& parts = done.choices(0).parts();
  return std::any_of(parts.begin(), parts.end(),
                     [part](const v1::PartEnd& end) { return end.index() == part && end.complete(); });
}

std::string_view TypeOfDelta(v1::PartKind kind) {
  switch (kind) {
    case v1::PART_KIND_REASONING:
      return "response.reasoning_text.delta";
    case v1::PART_KIND_REFUSAL:
      return "response.refusal.delta";
    case v1::PART_KIND_TOOL_CALL:
      return "response.function_call_arguments.delta";
    default:
      return "response.output_text.delta";
  }
}

}  // namespace

ResponseState ResponseState::Of(const v1::Generation& generation, ResponseEcho echo) {
  ResponseState state;
  state.generation_id = generation.id();
  state.echo = std::move(echo);
  state.model = generation.model();
  state.created_at = generation.created_at().seconds();
  if (generation.choices_size() > 0) {
    const v1::ChoiceText& choice = generation.choices(0);
    state.items = choice.parts().empty() ? ItemsOf(choice.text()) : ItemsOf(choice.parts());
  }
  if (generation.status() == v1::GENERATION_STATUS_QUEUED) state.status = "queued";
  if (generation.has_done()) state.ApplyDone(generation.done());
  if (generation.has_failed()) state.ApplyFailed(generation.failed());
  return state;
}

void ResponseState::ApplyDone(const v1::Done& done) {
  usage = done.usage();
  if (items.empty()) items.emplace_back();
  const v1::FinishReason reason =
      done.choices_size() > 0 ? done.choices(0).finish_reason() : v1::FINISH_REASON_UNSPECIFIED;
  switch (reason) {
    case v1::FINISH_REASON_CANCELLED:
      status = "cancelled";
      break;
    case v1::FINISH_REASON_LENGTH:
      status = "incomplete";
      incomplete_reason = "max_output_tokens";
      break;
    case v1::FINISH_REASON_CONTENT_FILTER:
      status = "incomplete";
      incomplete_reason = "content_filter";
      break;
    default:
      status = "completed";
  }
  const bool normal = status == "completed";
  for (ResponseItem& item : items) {
    if (!item.in_progress()) continue;
    const bool complete = item.is_call() ? IsComplete(done, item.part) : normal;
    item.status = complete ? "completed" : "incomplete";
    if (complete || !normal) continue;
    // Servers that cut a call at their limit may say that it is finished.
    status = "incomplete";
    incomplete_reason = "max_output_tokens";
  }
}

void ResponseState::ApplyFailed(const v1::Failed& failed) {
  status = "failed";
  error = failed.message();
  for (ResponseItem& item : items) {
    if (item.in_progress()) item.status = "incomplete";
  }
}

std::string ResponseJson(const ResponseState& state) {
  std::string json =
      absl::StrCat("{\"id\":\"resp_", Random(state), "\",\"object\":\"response\",\"created_at\":", state.created_at,
                   ",\"status\":\"", ToAbsl(state.status), "\",\"error\":");
  if (state.error.has_value()) {
    absl::StrAppend(&json, "{\"code\":\"server_error\",\"message\":", Quoted(*state.error), "}");
  } else {
    json += "null";
  }
  json += ",\"incomplete_details\":";
  if (state.incomplete_reason.empty()) {
    json += "null";
  } else {
    absl::StrAppend(&json, "{\"reason\":\"", ToAbsl(state.incomplete_reason), "\"}");
  }
  std::string items;
  for (const ResponseItem& item : state.items) {
    absl::StrAppend(&items, items.empty() ? "" : ",", ItemJson(state.generation_id, item, /*with_content=*/true));
  }
  absl::StrAppend(&json, ",\"instructions\":", state.echo.instructions, ",\"metadata\":", state.echo.metadata,
                  ",\"model\":", Quoted(state.model), ",\"output\":[", items,
                  "],\"parallel_tool_calls\":", state.echo.parallel_tool_calls ? "true" : "false",
                  ",\"temperature\":", state.echo.temperature, ",\"top_p\":", state.echo.top_p,
                  state.echo.top_logprobs.empty() ? "" : ",\"top_logprobs\":", state.echo.top_logprobs,
                  ",\"tool_choice\":", state.echo.tool_choice,
                  ",\"tools\":", state.echo.tools.empty() ? "[]" : state.echo.tools,
                  state.echo.max_tool_calls.empty() ? "" : ",\"max_tool_calls\":", state.echo.max_tool_calls,
                  ",\"max_output_tokens\":", state.echo.max_output_tokens, ",\"text\":", state.echo.text,
                  ",\"truncation\":\"disabled\"", ",\"reasoning\":", state.echo.reasoning,
                  ",\"service_tier\":", state.echo.service_tier, ",\"store\":", state.echo.store ? "true" : "false",
                  ",\"previous_response_id\":", state.echo.previous_response_id,
                  ",\"background\":", state.echo.background ? "true" : "false",
                  ",\"usage\":", state.usage.has_value() ? UsageJson(*state.usage) : "null", "}");
  return json;
}

uint64_t LastNumber(const v1::Generation& generation) {
  const ResponseState state = ResponseState::Of(generation, ResponseEcho());
  const bool ended = generation.has_done() || generation.has_failed();
  // `started`, the deltas, and the last event. `started` follows immediately, even if the log is still empty.
  uint64_t events = 2 + std::max<uint64_t>(generation.last_seq(), ended ? 2 : 1) - 1;
  for (const ResponseItem& item : state.items) {
    const bool has_ended = item.status == "completed" || (generation.has_done() && !item.is_call());
    if (item.is_call()) {
      events += has_ended ? 3 : 1;
    } else {
      events += has_ended ? 5 : 2;
    }
  }
  // A single text whose content was omitted, or which may still begin.
  if (state.items.empty()) events += 2;
  return events - 1;
}

absl::Status ResponsesEncoder::Open(std::string_view gen, const bridge::GenerationInfo& opened) {
  absl::StatusOr<ResponseEcho> echo = ResponseEcho::FromAnnotation(opened.annotation);
  if (!echo.ok()) return echo.status();
  if (kind_ == Kind::kStored && !echo->store) {
    return bridge::NoSuchGeneration("the response is not stored");
  }
  state_.generation_id = std::string(gen);
  state_.echo = *std::move(echo);
  return absl::OkStatus();
}

bridge::HttpError ResponsesEncoder::ErrorOf(const absl::Status& status, bool repeatable) const {
  return OpenAiErrorOf(status, OpenAiApi::kResponses, repeatable);
}

void ResponsesEncoder::Encode(std::string_view, v1::GenerationEvent& event, std::string* out) {
  last_seq_ = event.seq();
  switch (event.payload_case()) {
    case v1::GenerationEvent::kStarted:
      return EncodeStarted(event.started(), out);
    case v1::GenerationEvent::kDelta:
      return event.delta().choice() == 0 ? EncodeDelta(event.delta(), out) : void();
    case v1::GenerationEvent::kDone:
      return EncodeDone(event.done(), out);
    case v1::GenerationEvent::kFailed:
      return EncodeFailed(event.failed(), out);
    case v1::GenerationEvent::kGap:
    case v1::GenerationEvent::PAYLOAD_NOT_SET:
      return;
  }
}

bool ResponsesEncoder::EncodeGap(std::string_view, v1::GenerationEvent& event, std::string* out) {
  const std::optional<std::vector<v1::Delta>> rest = sent_.RestOf(event.gap());
  if (rest.has_value() && Continue(event.seq(), *rest, out)) return true;
  const bridge::HttpError error = ErrorOfLostOutput();
  AppendEvent("error", next_number_++,
              absl::StrCat(",\"code\":", Quoted(error.code), ",\"message\":", Quoted(error.message), ",\"param\":null"),
              out);
  return false;
}

bool ResponsesEncoder::Continue(uint64_t seq, const std::vector<v1::Delta>& rest, std::string* out) {
  // Without the text, the log follows from its beginning, and merged, so that its events cannot be counted.
  if (seq == 0 || last_seq_ == 0) return false;
  // `started` takes two numbers, each delta one; the others are those of items.
  const uint64_t of_items = next_number_ - (last_seq_ + 1);
  const uint64_t after_gap = seq + 1 + of_items;
  if (after_gap < next_number_ + rest.size()) return false;
  next_number_ = after_gap - rest.size();
  last_seq_ = seq;
  for (const v1::Delta& delta : rest) {
    if (delta.choice() == 0) EncodeDelta(delta, out);
  }
  return true;
}

std::optional<bridge::HttpError> ResponsesEncoder::ErrorOfEnd(const v1::GenerationEvent& event) const {
  if (!event.failed().has_server_error() || state_.echo.background) return std::nullopt;
  return ErrorOfFailed(event.failed());
}

void ResponsesEncoder::EncodeStarted(const v1::Started& started, std::string* out) {
  state_.model = started.model();
  state_.created_at = started.created_at().seconds();
  const std::string response = absl::StrCat(",\"response\":", ResponseJson(state_));
  Emit("response.created", response, out);
  Emit("response.in_progress", response, out);
}

void ResponsesEncoder::EncodeDelta(const v1::Delta& delta, std::string* out) {
  sent_.Add(delta);
  ResponseItem* item = ItemOf(delta, out);
  if (item == nullptr) return;
  const bool text = item->kind == v1::PART_KIND_TEXT;
  const std::string& content = text ? delta.text() : delta.content();
  std::string rest =
      absl::StrCat(item->is_call() ? Place(*item) : PlaceOfContent(*item), ",\"delta\":", Quoted(content));
  if (text) {
    std::string logprobs;
    AppendTokenList(delta.logprobs(), &logprobs);
    absl::StrAppend(&rest, ",\"logprobs\":[", logprobs, "]");
    KeepLogprobs(logprobs, item);
  }
  Emit(TypeOfDelta(item->kind), rest, out);
  item->content += content;
}

ResponseItem* ResponsesEncoder::ItemOf(const v1::Delta& delta, std::string* out) {
  std::vector<ResponseItem>& items = state_.items;
  if (ResponseItem* found = FindItem(delta.part(), &items); found != nullptr) {
    return found->kind == delta.kind() ? found : nullptr;
  }
  // Parts open in the order of their indexes.
  if (!HasItem(delta.kind()) || (!items.empty() && delta.part() < items.back().part)) return nullptr;
  if (!items.empty() && !items.back().is_call()) {
    items.back().status = "completed";
    EndItem(items.back(), out);
  }
  BeginItem({delta.part(), delta.kind(), "", delta.call().id(), delta.call().name()}, out);
  return &items.back();
}

void ResponsesEncoder::BeginItem(ResponseItem item, std::string* out) {
  state_.items.push_back(std::move(item));
  const ResponseItem& begun = state_.items.back();
  Emit("response.output_item.added",
       absl::StrCat(Index(begun), ",\"item\":", ItemJson(state_.generation_id, begun, /*with_content=*/false)), out);
  if (begun.is_call()) return;
  Emit("response.content_part.added", absl::StrCat(PlaceOfContent(begun), ",\"part\":", ContentJson(begun)), out);
}

void ResponsesEncoder::EndItem(const ResponseItem& item, std::string* out) {
  // Clients execute a call when they see one of these events.
  if (item.is_call() && item.status != "completed") return;
  const std::string content = Quoted(item.content);
  switch (item.kind) {
    case v1::PART_KIND_TOOL_CALL:
      Emit("response.function_call_arguments.done",
           absl::StrCat(Place(item), ",\"name\":", Quoted(item.name), ",\"arguments\":", content), out);
      break;
    case v1::PART_KIND_REASONING:
      Emit("response.reasoning_text.done", absl::StrCat(PlaceOfContent(item), ",\"text\":", content), out);
      break;
    case v1::PART_KIND_REFUSAL:
      Emit("response.refusal.done", absl::StrCat(PlaceOfContent(item), ",\"refusal\":", content), out);
      break;
    default:
      Emit("response.output_text.done",
           absl::StrCat(PlaceOfContent(item), ",\"text\":", content, ",\"logprobs\":[", item.logprobs, "]"), out);
  }
  if (!item.is_call()) {
    Emit("response.content_part.done", absl::StrCat(PlaceOfContent(item), ",\"part\":", ContentJson(item)), out);
  }
  Emit("response.output_item.done",
       absl::StrCat(Index(item), ",\"item\":", ItemJson(state_.generation_id, item, /*with_content=*/true)), out);
}

void ResponsesEncoder::KeepLogprobs(const std::string& logprobs, ResponseItem* item) {
  if (logprobs.empty() || logprob_bytes_ > kMaxRepeatedLogprobs) return;
  logprob_bytes_ += logprobs.size() + 1;
  absl::StrAppend(&item->logprobs, item->logprobs.empty() ? "" : ",", logprobs);
  if (logprob_bytes_ <= kMaxRepeatedLogprobs) return;
  for (ResponseItem& each : state_.items) std::string().swap(each.logprobs);
}

void ResponsesEncoder::EncodeDone(const v1::Done& done, std::string* out) {
  if (state_.items.empty()) BeginItem({}, out);
  std::vector<size_t> ending;
  for (size_t i = 0; i < state_.items.size(); ++i) {
    if (state_.items[i].in_progress()) ending.push_back(i);
  }
  state_.ApplyDone(done);
  for (const size_t i : ending) EndItem(state_.items[i], out);
  EmitEnd(out);
}

void ResponsesEncoder::EncodeFailed(const v1::Failed& failed, std::string* out) {
  if (state_.items.empty()) {
    BeginItem({}, out);
    state_.items.clear();  // nothing came
  }
  state_.ApplyFailed(failed);
  EmitEnd(out);
}

std::string ResponsesEncoder::Index(const ResponseItem& item) const {
  return absl::StrCat(",\"output_index\":", &item - state_.items.data());
}

std::string ResponsesEncoder::Place(const ResponseItem& item) const {
  return absl::StrCat(",\"item_id\":\"", ItemIdOf(state_.generation_id, item), "\"", Index(item));
}

std::string ResponsesEncoder::PlaceOfContent(const ResponseItem& item) const {
  return Place(item) + ",\"content_index\":0";
}

void ResponsesEncoder::Emit(std::string_view type, std::string_view rest, std::string* out) {
  const uint64_t number = next_number_++;
  if (starting_after_.has_value() && number <= *starting_after_) return;
  AppendEvent(type, number, rest, out);
}

void ResponsesEncoder::EmitEnd(std::string* out) {
  const std::string_view type = state_.status == "completed" ? "response.completed"
                                : state_.status == "failed"  ? "response.failed"
                                                             : "response.incomplete";
  AppendEvent(type, next_number_++, absl::StrCat(",\"response\":", ResponseJson(state_)), out);
}

}  // namespace runnel::openai
