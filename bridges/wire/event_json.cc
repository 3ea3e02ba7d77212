#include "bridges/wire/event_json.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "bridges/wire/part_json.h"

namespace runnel::bridge {
namespace {

void AppendTime(const google::protobuf::Timestamp& time, std::string* out) {
  const absl::Time at = absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
  const bool whole = time.nanos() < 1'000'000;
  out->push_back('"');
  out->append(absl::FormatTime(whole ? "%Y-%m-%dT%H:%M:%SZ" : "%Y-%m-%dT%H:%M:%E3SZ", at, absl::UTCTimeZone()));
  out->push_back('"');
}

void AppendUsage(const v1::Usage& usage, std::string* out) {
  AppendField("{\"prompt_tokens\":", usage.prompt_tokens(), out);
  AppendField(",\"completion_tokens\":", usage.completion_tokens(), out);
  AppendField(",\"total_tokens\":", uint64_t{usage.prompt_tokens()} + usage.completion_tokens(), out);
  if (usage.cached_prompt_tokens() > 0) AppendField(",\"cached_prompt_tokens\":", usage.cached_prompt_tokens(), out);
  if (usage.reasoning_tokens() > 0) AppendField(",\"reasoning_tokens\":", usage.reasoning_tokens(), out);
  out->push_back('}');
}

void AppendFinishReason(v1::FinishReason reason, std::string* out) {
  const std::string_view name = FinishReasonName(reason);
  out->append(",\"finish_reason\":");
  if (name.empty()) {
    out->append("null");
  } else {
    AppendJsonString(name, out);
  }
}

void AppendServerError(const v1::ServerError& error, std::string* out) {
  AppendField(",\"server_error\":{\"status\":", error.status(), out);
  if (!error.type().empty()) AppendField(",\"type\":", error.type(), out);
  if (!error.code().empty()) AppendField(",\"code\":", error.code(), out);
  if (!error.param().empty()) AppendField(",\"param\":", error.param(), out);
  if (error.has_retry_after()) {
    AppendField(",\"retry_after_seconds\":", static_cast<uint64_t>(std::max<int64_t>(error.retry_after().seconds(), 0)),
                out);
  }
  out->push_back('}');
}

void AppendError(const v1::Failed& failed, std::string* out) {
  AppendField("{\"code\":", failed.code(), out);
  AppendField(",\"message\":", failed.message(), out);
  out->append(failed.retryable() ? ",\"retryable\":true" : ",\"retryable\":false");
  if (failed.has_server_error()) AppendServerError(failed.server_error(), out);
  out->push_back('}');
}

void AppendStarted(const v1::Started& started, std::string* out) {
  AppendField(",\"model\":", started.model(), out);
  out->append(",\"created_at\":");
  AppendTime(started.created_at(), out);
  AppendField(",\"prompt_tokens\":", started.prompt_tokens(), out);
}

void AppendDelta(const v1::Delta& delta, std::string* out) {
  AppendField(",\"choice\":", delta.choice(), out);
  AppendDeltaOutput(delta, out);
  AppendField(",\"tokens\":", delta.tokens(), out);
}

void AppendDone(const v1::Done& done, std::string* out) {
  AppendField(",\"final\":true,\"events\":", done.event_count(), out);
  out->append(",\"choices\":[");
  for (int i = 0; i < done.choices_size(); ++i) {
    const v1::ChoiceEnd& end = done.choices(i);
    AppendField(i == 0 ? "{\"index\":" : ",{\"index\":", end.index(), out);
    AppendFinishReason(end.finish_reason(), out);
    AppendField(",\"text_bytes\":", end.text_bytes(), out);
    out->append(absl::StrFormat(",\"crc32\":\"%08x\"", end.text_crc32()));
    AppendPartEnds(end.parts(), out);
    out->push_back('}');
  }
  out->append("],\"usage\":");
  AppendUsage(done.usage(), out);
}

std::string_view GapReasonName(v1::GapReason reason) {
  return reason == v1::GAP_REASON_TAIL_LOST ? "tail_lost" : "after_beyond_end";
}

void AppendGap(const v1::Gap& gap, uint64_t seq, std::string* out) {
  AppendField(",\"requested_after\":", gap.requested_after(), out);
  AppendField(",\"first_available\":", gap.first_available(), out);
  AppendField(",\"reason\":", GapReasonName(gap.reason()), out);
  AppendField(",\"snapshot\":{\"seq\":", seq, out);
  out->append(",\"choices\":[");
  for (int i = 0; i < gap.snapshot_size(); ++i) {
    AppendField(i == 0 ? "{\"index\":" : ",{\"index\":", gap.snapshot(i).index(), out);
    AppendField(",\"text\":", gap.snapshot(i).text(), out);
    AppendPartTexts(gap.snapshot(i).parts(), out);
    out->push_back('}');
  }
  out->append("]}");
}

// Null while the choice goes on.
const v1::ChoiceEnd* EndOf(const v1::Generation& generation, uint32_t choice) {
  const auto& ends = generation.done().choices();
  const auto end =
      std::find_if(ends.begin(), ends.end(), [choice](const v1::ChoiceEnd& each) { return each.index() == choice; });
  return end == ends.end() ? nullptr : &*end;
}

}  // namespace

void AppendEventJson(std::string_view gen, const v1::GenerationEvent& event, std::string* out) {
  out->append("{\"type\":\"");
  out->append(EventName(event));
  out->append("\",\"gen\":\"");
  out->append(gen);
  if (event.has_delta() && event.first_seq() != 0 && event.first_seq() != event.seq()) {
    AppendField("\",\"first_seq\":", event.first_seq(), out);
    AppendField(",\"seq\":", event.seq(), out);
  } else {
    AppendField("\",\"seq\":", event.seq(), out);
  }
  AppendEpoch(event.epoch(), out);
  switch (event.payload_case()) {
    case v1::GenerationEvent::kDelta:
      AppendDelta(event.delta(), out);
      break;
    case v1::GenerationEvent::kStarted:
      AppendStarted(event.started(), out);
      break;
    case v1::GenerationEvent::kDone:
      AppendDone(event.done(), out);
      break;
    case v1::GenerationEvent::kFailed:
      out->append(",\"final\":true,\"error\":");
      AppendError(event.failed(), out);
      break;
    case v1::GenerationEvent::kGap:
      AppendGap(event.gap(), event.seq(), out);
      out->push_back('}');
      return;
    case v1::GenerationEvent::PAYLOAD_NOT_SET:
      break;
  }
  AppendField(",\"ms\":", event.elapsed_us() / 1000, out);
  out->push_back('}');
}

void AppendEpoch(uint32_t epoch, std::string* out) {
  if (epoch != 0) AppendField(",\"epoch\":", epoch, out);
}

std::string_view EventName(const v1::GenerationEvent& event) {
  switch (event.payload_case()) {
    case v1::GenerationEvent::kStarted:
      return "started";
    case v1::GenerationEvent::kDelta:
      return "delta";
    case v1::GenerationEvent::kDone:
      return "done";
    case v1::GenerationEvent::kFailed:
      return "failed";
    case v1::GenerationEvent::kGap:
      return "gap";
    case v1::GenerationEvent::PAYLOAD_NOT_SET:
      break;
  }
  return "";
}

std::string_view StatusName(v1::GenerationStatus status) {
  switch (status) {
    case v1::GENERATION_STATUS_QUEUED:
      return "queued";
    case v1::GENERATION_STATUS_DONE:
      return "done";
    case v1::GENERATION_STATUS_FAILED:
      return "failed";
    default:
      return "running";
  }
}

std::string_view FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    case v1::FINISH_REASON_CONTENT_FILTER:
      return "content_filter";
    case v1::FINISH_REASON_TOOL_CALLS:
      return "tool_calls";
    default:
      return "";
  }
}

void AppendGenerationJson(const v1::Generation& generation, std::string* out) {
  AppendField("{\"id\":", generation.id(), out);
  AppendField(",\"model\":", generation.model(), out);
  AppendField(",\"status\":", StatusName(generation.status()), out);
  AppendField(",\"last_seq\":", generation.last_seq(), out);
  AppendEpoch(generation.epoch(), out);
  out->append(",\"choices\":[");
  for (int i = 0; i < generation.choices_size(); ++i) {
    AppendField(i == 0 ? "{\"index\":" : ",{\"index\":", generation.choices(i).index(), out);
    AppendField(",\"text\":", generation.choices(i).text(), out);
    AppendFinishReason(generation.choices(i).finish_reason(), out);
    AppendPartTexts(generation.choices(i).parts(), EndOf(generation, generation.choices(i).index()), out);
    out->push_back('}');
  }
  out->append("],\"usage\":");
  AppendUsage(generation.usage(), out);
  out->append(",\"created_at\":");
  AppendTime(generation.created_at(), out);
  out->append(",\"expires_at\":");
  if (generation.has_expire_time()) {
    AppendTime(generation.expire_time(), out);
  } else {
    out->append("null");
  }
  if (generation.has_failed()) {
    out->append(",\"error\":");
    AppendError(generation.failed(), out);
  }
  out->push_back('}');
}

void AppendProgressJson(const v1::Progress& progress, std::string* out) {
  switch (progress.stage()) {
    case v1::PROGRESS_STAGE_QUEUED:
      out->append("{\"stage\":\"queued\"");
      if (progress.queue_position() > 0) AppendField(",\"queue_position\":", progress.queue_position(), out);
      break;
    case v1::PROGRESS_STAGE_PREFILL:
      out->append("{\"stage\":\"prefill\"");
      if (progress.has_prefill_share()) absl::StrAppendFormat(out, ",\"prefill_share\":%.3f", progress.prefill_share());
      break;
    default:
      out->append("{\"stage\":\"decoding\"");
  }
  out->push_back('}');
}

void AppendModelJson(const v1::Model& model, std::string* out) {
  AppendField("{\"id\":", model.id(), out);
  AppendField(",\"object\":\"model\",\"created\":", static_cast<uint64_t>(model.created_at().seconds()), out);
  AppendField(",\"owned_by\":\"runnel\",\"engine\":", model.engine(), out);
  if (model.context_length() > 0) AppendField(",\"context_length\":", model.context_length(), out);
  out->push_back('}');
}

}  // namespace runnel::bridge
