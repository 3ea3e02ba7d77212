#include "services/inference/rpc/generation_to_proto.h"

#include <string>
#include <utility>
#include <variant>

#include "services/base/message_limits.h"
#include "services/inference/rpc/event_to_proto.h"

namespace runnel::inference {

v1::GenerationStatus StatusToProto(const Generation& generation) {
  switch (generation.status()) {
    case GenerationStatus::kQueued:
      return v1::GENERATION_STATUS_QUEUED;
    case GenerationStatus::kRunning:
      return v1::GENERATION_STATUS_RUNNING;
    case GenerationStatus::kDone:
      return v1::GENERATION_STATUS_DONE;
    case GenerationStatus::kFailed:
      return v1::GENERATION_STATUS_FAILED;
  }
  return v1::GENERATION_STATUS_UNSPECIFIED;
}

void ProgressToProto(const Progress& progress, v1::Progress* proto) {
  switch (progress.stage) {
    case Progress::Stage::kQueued:
      proto->set_stage(v1::PROGRESS_STAGE_QUEUED);
      break;
    case Progress::Stage::kPrefill:
      proto->set_stage(v1::PROGRESS_STAGE_PREFILL);
      break;
    case Progress::Stage::kDecoding:
      proto->set_stage(v1::PROGRESS_STAGE_DECODING);
      break;
  }
  proto->set_queue_position(progress.queue_position);
  if (progress.prefill_share.has_value()) proto->set_prefill_share(*progress.prefill_share);
}

void GenerationToProto(const Generation& generation, absl::Time expires_at, size_t max_text_bytes,
                       v1::Generation* proto) {
  // Before the snapshot: a status that says that the generation has ended must not come without its terminal event.
  proto->set_status(StatusToProto(generation));
  EventLog::State state = generation.log().Snapshot(max_text_bytes);
  proto->set_id(generation.id());
  proto->set_model(generation.model());
  proto->set_last_seq(state.last_seq);
  proto->set_epoch(generation.epoch());
  for (ChoiceText& choice : state.choices) ChoiceTextToProto(std::move(choice), proto->add_choices());
  proto->set_text_omitted(state.texts_omitted);
  UsageToProto(state.usage, proto->mutable_usage());
  proto->set_annotation(generation.annotation());
  TimeToProto(generation.created_at(), proto->mutable_created_at());
  if (expires_at != absl::InfiniteFuture()) TimeToProto(expires_at, proto->mutable_expire_time());
  if (state.terminal.empty()) return;
  if (const auto* done = std::get_if<Done>(&state.terminal.front().payload)) {
    proto->set_status(v1::GENERATION_STATUS_DONE);
    DoneToProto(*done, proto->mutable_done());
  } else if (const auto* failed = std::get_if<Failed>(&state.terminal.front().payload)) {
    proto->set_status(v1::GENERATION_STATUS_FAILED);
    FailedToProto(*failed, proto->mutable_failed());
  }
}

void KeptInputToProto(const Generation& generation, uint64_t offset, v1::GetGenerationResponse* proto) {
  const std::string& input = generation.kept_input();
  proto->set_input_bytes(input.size());
  if (offset < input.size()) proto->set_input(input.substr(offset, base::kMaxInputPieceBytes));
}

void ModelToProto(const ModelInfo& model, v1::Model* proto) {
  proto->set_id(model.id);
  proto->set_engine(model.engine);
  proto->set_context_length(model.context_length);
  TimeToProto(model.created_at, proto->mutable_created_at());
}

}  // namespace runnel::inference
