// How GenerationManager lets bridges claim request_ids, so that of several replicas only one starts.
#include <utility>

#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/manager_error.h"

namespace runnel::inference {

GenerationManager::ClaimResult GenerationManager::Claim(ClaimTable::Ref claim, const ClaimRequest& request) {
  const std::string key = StartKey(request.principal, request.request_id);
  base::MutexLock lock(&mu_);
  ClaimResult answer;
  if (const auto found = starts_.find(key); found != starts_.end()) {
    answer.outcome = found->second.pending != nullptr ? ClaimTable::Outcome::kHeld : ClaimTable::Outcome::kNamed;
    answer.generation_id = found->second.generation_id;
    return answer;
  }
  answer.outcome = claims_.Claim(key, claim, request.lost_generation_id, &answer.generation_id);
  return answer;
}

void GenerationManager::Release(ClaimTable::Ref claim, const std::string& generation_id) {
  base::MutexLock lock(&mu_);
  // What is started here is found without a name.
  claims_.Release(claim, generations_.contains(generation_id) ? "" : generation_id);
}

void GenerationManager::ReleaseClaims(uint64_t link) {
  base::MutexLock lock(&mu_);
  claims_.ReleaseAll(link);
}

absl::Status GenerationManager::CheckClaimLocked(const std::string& key, const StartTerms& terms) {
  if (terms.existing_only) {
    return base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND", "request_id names no generation");
  }
  if (terms.claim.number != 0 && !claims_.MayStart(key, terms.claim)) {
    return base::MakeError(absl::StatusCode::kUnavailable, "CLAIM_LOST", "the claim of the request_id has ended",
                           options_.retry_after);
  }
  if (terms.claim.number == 0 && !key.empty() && claims_.IsHeld(key)) {
    return base::MakeError(absl::StatusCode::kUnavailable, "REQUEST_ID_CLAIMED",
                           "another start with this request_id is under way", options_.retry_after);
  }
  return absl::OkStatus();
}

}  // namespace runnel::inference
