#include "services/inference/rpc/event_to_proto.h"

#include <cstdint>
#include <utility>
#include <variant>

#include "services/inference/generation/logprob_store.h"

namespace runnel::inference {
namespace {

// About what an event, or a part in an event, takes on the wire in addition to its strings.
constexpr size_t kEventOverheadBytes = 32;

v1::FinishReason ReasonToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kCancelled:
      return v1::FINISH_REASON_CANCELLED;
    case FinishReason::kContentFilter:
      return v1::FINISH_REASON_CONTENT_FILTER;
    case FinishReason::kToolCalls:
      return v1::FINISH_REASON_TOOL_CALLS;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

v1::PartKind KindToProto(PartKind kind) {
  switch (kind) {
    case PartKind::kText:
      return v1::PART_KIND_TEXT;
    case PartKind::kReasoning:
      return v1::PART_KIND_REASONING;
    case PartKind::kToolCall:
      return v1::PART_KIND_TOOL_CALL;
    case PartKind::kRefusal:
      return v1::PART_KIND_REFUSAL;
  }
  return v1::PART_KIND_TEXT;
}

void LogprobToProto(TokenLogprob logprob, v1::TokenLogprob* proto) {
  proto->set_token(std::move(logprob.token));
  proto->set_logprob(logprob.logprob);
  for (TokenLogprob& each : logprob.top) LogprobToProto(std::move(each), proto->add_top());
}

// One overload per payload: a new kind of event does not compile until it is on the wire.
struct PayloadWriter {
  v1::GenerationEvent* proto;

  void operator()(Started&& started) const {
    proto->mutable_started()->set_model(std::move(started.model));
    proto->mutable_started()->set_prompt_tokens(started.prompt_tokens);
    proto->mutable_started()->set_fingerprint(std::move(started.fingerprint));
    TimeToProto(started.created_at, proto->mutable_started()->mutable_created_at());
  }
  void operator()(Delta&& delta) const {
    v1::Delta* const to = proto->mutable_delta();
    to->set_choice(delta.choice);
    // A reader that does not know parts must not take other content for text.
    delta.kind == PartKind::kText ? to->set_text(std::move(delta.text)) : to->set_content(std::move(delta.text));
    to->set_tokens(delta.tokens);
    to->set_part(delta.part);
    to->set_kind(KindToProto(delta.kind));
    if (delta.call != nullptr) {
      to->mutable_call()->set_id(delta.call->id);
      to->mutable_call()->set_name(delta.call->name);
    }
    for (TokenLogprob& each : delta.logprobs) LogprobToProto(std::move(each), to->add_logprobs());
  }
  void operator()(Done&& done) const { DoneToProto(done, proto->mutable_done()); }
  void operator()(Failed&& failed) const { FailedToProto(failed, proto->mutable_failed()); }
  void operator()(Gap&& gap) const {
    proto->mutable_gap()->set_requested_after(gap.requested_after);
    proto->mutable_gap()->set_first_available(gap.first_available);
    proto->mutable_gap()->set_reason(gap.reason == Gap::Reason::kTailLost ? v1::GAP_REASON_TAIL_LOST
                                                                          : v1::GAP_REASON_AFTER_BEYOND_END);
    for (ChoiceText& choice : gap.snapshot) {
      ChoiceTextToProto(std::move(choice), proto->mutable_gap()->add_snapshot());
    }
  }
};

}  // namespace

void TimeToProto(absl::Time time, google::protobuf::Timestamp* proto) {
  const int64_t nanos = absl::ToUnixNanos(time);
  proto->set_seconds(nanos / 1'000'000'000);
  proto->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

void ChoiceTextToProto(ChoiceText choice, v1::ChoiceText* proto) {
  proto->set_index(choice.index);
  proto->set_text(std::move(choice.text));
  proto->set_finish_reason(ReasonToProto(choice.finish_reason));
  for (PartText& part : choice.parts) {
    v1::PartText* const to = proto->add_parts();
    to->set_index(part.index);
    to->set_kind(KindToProto(part.kind));
    to->set_id(std::move(part.call.id));
    to->set_name(std::move(part.call.name));
    to->set_content(std::move(part.content));
  }
}

void OpenedPartToProto(OpenedPart part, v1::OpenedPart* proto) {
  proto->set_choice(part.choice);
  proto->set_index(part.index);
  proto->set_kind(KindToProto(part.kind));
  proto->set_id(std::move(part.call.id));
  proto->set_name(std::move(part.call.name));
  proto->set_bytes(part.bytes);
}

void UsageToProto(const Usage& usage, v1::Usage* proto) {
  proto->set_prompt_tokens(usage.prompt_tokens);
  proto->set_completion_tokens(usage.completion_tokens);
  proto->set_cached_prompt_tokens(usage.cached_prompt_tokens);
  proto->set_reasoning_tokens(usage.reasoning_tokens);
}

void DoneToProto(const Done& done, v1::Done* proto) {
  proto->set_event_count(done.event_count);
  for (const ChoiceEnd& end : done.choices) {
    auto* choice = proto->add_choices();
    choice->set_index(end.index);
    choice->set_finish_reason(ReasonToProto(end.finish_reason));
    choice->set_text_bytes(end.text_bytes);
    choice->set_text_crc32(end.text_crc32);
    for (const PartEnd& part : end.parts) {
      v1::PartEnd* const to = choice->add_parts();
      to->set_index(part.index);
      to->set_kind(KindToProto(part.kind));
      to->set_bytes(part.bytes);
      to->set_crc32(part.crc32);
      to->set_id(part.call.id);
      to->set_name(part.call.name);
      to->set_complete(part.complete);
    }
  }
  UsageToProto(done.usage, proto->mutable_usage());
}

void FailedToProto(const Failed& failed, v1::Failed* proto) {
  proto->set_code(failed.code);
  proto->set_message(failed.message);
  proto->set_retryable(failed.retryable);
  if (!failed.server_error.has_value()) return;
  const ServerError& error = *failed.server_error;
  v1::ServerError* const to = proto->mutable_server_error();
  to->set_status(static_cast<uint32_t>(error.status));
  to->set_type(error.type);
  to->set_code(error.code);
  to->set_param(error.param);
  if (error.retry_after > absl::ZeroDuration()) {
    to->mutable_retry_after()->set_seconds(absl::ToInt64Seconds(absl::Ceil(error.retry_after, absl::Seconds(1))));
  }
}

size_t WireBytes(const Event& event) {
  size_t bytes = kEventOverheadBytes;
  if (const auto* delta = std::get_if<Delta>(&event.payload)) {
    bytes += ContentBytes(*delta);
  } else if (const auto* done = std::get_if<Done>(&event.payload)) {
    for (const ChoiceEnd& end : done->choices) {
      for (const PartEnd& part : end.parts) bytes += kEventOverheadBytes + part.call.id.size() + part.call.name.size();
    }
  } else if (const auto* gap = std::get_if<Gap>(&event.payload)) {
    for (const ChoiceText& choice : gap->snapshot) {
      bytes += choice.text.size();
      for (const PartText& part : choice.parts) {
        bytes += kEventOverheadBytes + part.content.size() + part.call.id.size() + part.call.name.size();
      }
    }
  }
  return bytes;
}

void EventToProto(Event event, uint32_t epoch, v1::GenerationEvent* proto) {
  proto->set_epoch(epoch);
  proto->set_seq(event.seq);
  proto->set_first_seq(event.first_seq == event.seq ? 0 : event.first_seq);
  proto->set_elapsed_us(event.elapsed_us);
  std::visit(PayloadWriter{proto}, std::move(event.payload));
}

}  // namespace runnel::inference
