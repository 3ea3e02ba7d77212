#include "tests/testing/takeover.h"

#include "services/base/grpc_status.h"

namespace runnel::testing {

v1::GenerationEvent InEpoch(v1::GenerationEvent event, uint32_t epoch) {
  event.set_epoch(epoch);
  return event;
}

std::vector<v1::GenerationEvent> InEpoch(std::vector<v1::GenerationEvent> events, uint32_t epoch) {
  for (v1::GenerationEvent& event : events) event.set_epoch(epoch);
  return events;
}

v1::GenerationEvent TailLost(uint64_t seq, const std::vector<std::string>& texts, uint32_t epoch) {
  v1::GenerationEvent event;
  event.set_seq(seq);
  event.set_epoch(epoch);
  event.mutable_gap()->set_requested_after(seq + 1);
  event.mutable_gap()->set_first_available(seq + 1);
  event.mutable_gap()->set_reason(v1::GAP_REASON_TAIL_LOST);
  for (const std::string& text : texts) {
    v1::ChoiceText* choice = event.mutable_gap()->add_snapshot();
    choice->set_index(static_cast<uint32_t>(event.gap().snapshot_size() - 1));
    choice->set_text(text);
  }
  return event;
}

v1::LinkResponse AttachedInEpoch(const FakeInferenceService::Command& command, const std::string& generation_id,
                                 v1::GenerationStatus status, uint64_t last_seq, uint32_t epoch) {
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  reply->mutable_attached()->set_generation_id(generation_id);
  reply->mutable_attached()->set_model("fake");
  reply->mutable_attached()->set_status(status);
  reply->mutable_attached()->set_last_seq(last_seq);
  reply->mutable_attached()->set_existing(true);
  reply->mutable_attached()->set_epoch(epoch);
  return response;
}

v1::LinkResponse Moved(const FakeInferenceService::Command& command, const std::string& id_prefix) {
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  reply->mutable_moved()->set_id_prefix(id_prefix);
  return response;
}

v1::LinkResponse Gone(const std::vector<std::string>& id_prefixes) {
  v1::LinkResponse response;
  for (const std::string& prefix : id_prefixes) response.add_gone_prefixes(prefix);
  return response;
}

absl::Status OwnedElsewhere(const std::string& id_prefix) {
  base::ErrorDetail detail;
  detail.reason = "OWNED_ELSEWHERE";
  detail.metadata["id_prefix"] = id_prefix;
  return base::MakeError(absl::StatusCode::kUnavailable, "another replica runs it", detail);
}

absl::Status LogUnavailable() {
  return base::MakeError(absl::StatusCode::kUnavailable, "LOG_UNAVAILABLE", "the store cannot be reached");
}

absl::Status Draining() {
  return base::MakeError(absl::StatusCode::kUnavailable, "DRAINING", "the replica is shutting down");
}

absl::Status ClaimRequired() {
  return base::MakeError(absl::StatusCode::kUnavailable, "CLAIM_REQUIRED", "claim the request_id on all replicas");
}

}  // namespace runnel::testing
