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
// The sequence_number of an event minus its seq: the first delta has seq 2 and number 4.
constexpr uint64_t kNumberOfSeq = 2;
// Events between `done` and the terminal event.
constexpr uint64_t kEventsOfEnd = 3;

absl::string_view Random(const ResponseState& state) {
  return ToAbsl(std::string_view(state.generation_id).substr(kIdPrefixBytes));
}

std::string Quoted(std::string_view text) {
  std::string json;
  AppendJsonString(text, &json);
  return json;
}

std::string Part(const ResponseState& state) {
  std::string logprobs;
  if (!state.logprobs.empty()) logprobs = absl::StrCat(",\"logprobs\":[", state.logprobs, "]");
  return absl::StrCat("{\"type\":\"output_text\",\"text\":", Quoted(state.text), ",\"annotations\":[]", logprobs, "}");
}

std::string Item(const ResponseState& state, bool with_text) {
  return absl::StrCat("{\"id\":\"msg_", Random(state), "\",\"type\":\"message\",\"status\":\"",
                      ToAbsl(state.item_status), "\",\"role\":\"assistant\",\"content\":[",
                      with_text ? Part(state) : std::string(), "]}");
}

std::string UsageJson(const v1::Usage& usage) {
  return absl::StrCat("{\"input_tokens\":", usage.prompt_tokens(),
                      ",\"input_tokens_details\":{\"cached_tokens\":", usage.cached_prompt_tokens(),
                      "},\"output_tokens\":", usage.completion_tokens(),
                      ",\"output_tokens_details\":{\"reasoning_tokens\":", usage.reasoning_tokens(),
                      "},\"total_tokens\":", uint64_t{usage.prompt_tokens()} + usage.completion_tokens(), "}");
}

}  // namespace

ResponseState ResponseState::Of(const v1::Generation& generation, ResponseEcho echo) {
  ResponseState state;
  state.generation_id = generation.id();
  state.echo = std::move(echo);
  state.model = generation.model();
  state.created_at = generation.created_at().seconds();
  if (generation.choices_size() > 0) state.text = generation.choices(0).text();
  if (!state.text.empty()) state.item_status = "in_progress";
  if (generation.status() == v1::GENERATION_STATUS_QUEUED) state.status = "queued";
  if (generation.has_done()) state.ApplyDone(generation.done());
  if (generation.has_failed()) state.ApplyFailed(generation.failed());
  return state;
}

void ResponseState::ApplyDone(const v1::Done& done) {
  usage = done.usage();
  const v1::FinishReason reason =
      done.choices_size() > 0 ? done.choices(0).finish_reason() : v1::FINISH_REASON_UNSPECIFIED;
  item_status = "incomplete";
  switch (reason) {
    case v1::FINISH_REASON_CANCELLED:
      status = "cancelled";
      return;
    case v1::FINISH_REASON_LENGTH:
      status = "incomplete";
      incomplete_reason = "max_output_tokens";
      return;
    case v1::FINISH_REASON_CONTENT_FILTER:
      status = "incomplete";
      incomplete_reason = "content_filter";
      return;
    default:
      status = item_status = "completed";
  }
}

void ResponseState::ApplyFailed(const v1::Failed& failed) {
  status = "failed";
  error = failed.message();
  item_status = text.empty() ? "" : "incomplete";
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
  absl::StrAppend(&json, ",\"instructions\":", state.echo.instructions, ",\"metadata\":", state.echo.metadata,
                  ",\"model\":", Quoted(state.model), ",\"output\":[",
                  state.item_status.empty() ? std::string() : Item(state, true),
                  "],\"parallel_tool_calls\":", state.echo.parallel_tool_calls ? "true" : "false",
                  ",\"temperature\":", state.echo.temperature, ",\"top_p\":", state.echo.top_p,
                  state.echo.top_logprobs.empty() ? "" : ",\"top_logprobs\":", state.echo.top_logprobs,
                  ",\"tool_choice\":", state.echo.tool_choice,
                  ",\"tools\":", state.echo.tools.empty() ? "[]" : state.echo.tools,
                  state.echo.max_tool_calls.empty() ? "" : ",\"max_tool_calls\":", state.echo.max_tool_calls,
                  ",\"max_output_tokens\":", state.echo.max_output_tokens, ",\"text\":", state.echo.text,
                  ",\"truncation\":\"disabled\"", ",\"reasoning\":", state.echo.reasoning,
                  ",\"service_tier\":", state.echo.service_tier, ",\"store\":", state.echo.store ? "true" : "false",
                  ",\"previous_response_id\":null,\"background\":", state.echo.background ? "true" : "false",
                  ",\"usage\":", state.usage.has_value() ? UsageJson(*state.usage) : "null", "}");
  return json;
}

absl::Status ResponsesEncoder::Open(std::string_view gen, const bridge::GenerationInfo& opened) {
  absl::StatusOr<ResponseEcho> echo = ResponseEcho::FromAnnotation(opened.annotation);
  if (!echo.ok()) return echo.status();
  if (kind_ == Kind::kStored && !echo->store) {
    return bridge::NoSuchGeneration("the response is not stored");
  }
  state_.generation_id = std::string(gen);
  state_.echo = *std::move(echo);
  return opened.existing ? CheckStart(opened) : absl::OkStatus();
}

absl::Status ResponsesEncoder::CheckStart(const bridge::GenerationInfo& opened) {
  if (!starting_after_.has_value()) return absl::OkStatus();
  const bool done = opened.status == v1::GENERATION_STATUS_DONE;
  const bool ended = done || opened.status == v1::GENERATION_STATUS_FAILED;
  // `started` follows immediately, even if the log is still empty.
  const uint64_t last = std::max<uint64_t>(opened.last_seq, 1) + kNumberOfSeq + (done ? kEventsOfEnd : 0);
  if (*starting_after_ > last) {
    return base::InvalidField("starting_after",
                              absl::StrCat("must be at most ", last, ", the number of the last event"));
  }
  // A stream that ends without an event would look like an empty success.
  if (ended && *starting_after_ == last) starting_after_ = last - 1;
  return absl::OkStatus();
}

bridge::HttpError ResponsesEncoder::ErrorOf(const absl::Status& status, bool repeatable) const {
  return OpenAiErrorOf(status, OpenAiApi::kResponses, repeatable);
}

void ResponsesEncoder::Encode(std::string_view, v1::GenerationEvent& event, std::string* out) {
  const uint64_t number = event.seq() + kNumberOfSeq;
  switch (event.payload_case()) {
    case v1::GenerationEvent::kStarted:
      state_.model = event.started().model();
      state_.created_at = event.started().created_at().seconds();
      return EncodeStarted(out);
    case v1::GenerationEvent::kDelta:
      return event.delta().choice() == 0 ? EncodeDelta(event.delta(), number, out) : void();
    case v1::GenerationEvent::kDone: {
      state_.ApplyDone(event.done());
      EncodeEndOfText(number, out);
      const std::string_view type = state_.status == "completed" ? "response.completed" : "response.incomplete";
      return Emit(type, number + kEventsOfEnd, absl::StrCat(",\"response\":", ResponseJson(state_)), out);
    }
    case v1::GenerationEvent::kFailed:
      state_.ApplyFailed(event.failed());
      return Emit("response.failed", number, absl::StrCat(",\"response\":", ResponseJson(state_)), out);
    case v1::GenerationEvent::kGap:
    case v1::GenerationEvent::PAYLOAD_NOT_SET:
      return;
  }
}

std::optional<bridge::HttpError> ResponsesEncoder::ErrorOfEnd(const v1::GenerationEvent& event) const {
  if (!event.failed().has_server_error() || state_.echo.background) return std::nullopt;
  return ErrorOfFailed(event.failed());
}

void ResponsesEncoder::EncodeStarted(std::string* out) {
  const std::string response = absl::StrCat(",\"response\":", ResponseJson(state_));
  Emit("response.created", 0, response, out);
  Emit("response.in_progress", 1, response, out);
  state_.item_status = "in_progress";
  Emit("response.output_item.added", 2, absl::StrCat(",\"output_index\":0,\"item\":", Item(state_, false)), out);
  Emit("response.content_part.added", 3, absl::StrCat(Place(), ",\"part\":", Part(state_)), out);
}

void ResponsesEncoder::EncodeDelta(const v1::Delta& delta, uint64_t number, std::string* out) {
  std::string logprobs;
  AppendTokenList(delta.logprobs(), &logprobs);
  Emit("response.output_text.delta", number,
       absl::StrCat(Place(), ",\"delta\":", Quoted(delta.text()), ",\"logprobs\":[", logprobs, "]"), out);
  state_.text += delta.text();
  if (logprobs.empty() || too_many_logprobs_) return;
  absl::StrAppend(&state_.logprobs, state_.logprobs.empty() ? "" : ",", logprobs);
  too_many_logprobs_ = state_.logprobs.size() > kMaxRepeatedLogprobs;
  if (too_many_logprobs_) std::string().swap(state_.logprobs);
}

void ResponsesEncoder::EncodeEndOfText(uint64_t number, std::string* out) {
  Emit("response.output_text.done", number,
       absl::StrCat(Place(), ",\"text\":", Quoted(state_.text), ",\"logprobs\":[", state_.logprobs, "]"), out);
  Emit("response.content_part.done", number + 1, absl::StrCat(Place(), ",\"part\":", Part(state_)), out);
  Emit("response.output_item.done", number + 2, absl::StrCat(",\"output_index\":0,\"item\":", Item(state_, true)), out);
}

std::string ResponsesEncoder::Place() const {
  return absl::StrCat(",\"item_id\":\"msg_", Random(state_), "\",\"output_index\":0,\"content_index\":0");
}

void ResponsesEncoder::Emit(std::string_view type, uint64_t number, std::string_view rest, std::string* out) const {
  if (starting_after_.has_value() && number <= *starting_after_) return;
  absl::StrAppend(out, "event: ", ToAbsl(type), "\ndata: {\"type\":\"", ToAbsl(type), "\",\"sequence_number\":", number,
                  ToAbsl(rest), "}\n\n");
}

}  // namespace runnel::openai
