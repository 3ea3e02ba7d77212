// How bridges claim request_ids, so that only one of several replicas starts the generation.
#include <utility>

#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/manager_error.h"

namespace runnel::inference {

GenerationManager::ClaimResult GenerationManager::Claim(ClaimTable::Ref claim, const ClaimRequest& request) {
  const std::string key = StartKey(request.principal, request.request_id);
  base::MutexLock lock(&mu_);
  ClaimResult result;
  if (const auto found = starts_.find(key); found != starts_.end()) {
    result.outcome = found->second.pending != nullptr ? ClaimTable::Outcome::kHeld : ClaimTable::Outcome::kNamed;
    result.generation_id = found->second.generation_id;
    return result;
  }
  result.outcome = claims_.Claim(key, claim, request.lost_generation_id, &result.generation_id);
  return result;
}

void GenerationManager::Release(ClaimTable::Ref claim, const std::string& generation_id) {
  base::MutexLock lock(&mu_);
  // starts_ has the names of this replica's generations.
  claims_.Release(claim, generations_.contains(generation_id) ? "" : generation_id);
}

void GenerationManager::ReleaseClaims(uint64_t link) {
  base::MutexLock lock(&mu_);
  claims_.ReleaseAll(link);
}

absl::Status GenerationManager::CheckClaimLocked(const std::string& key, const StartTerms& terms) {
  if (terms.existing_only) {
    return base::MakeError(absl::StatusCode::kNotFound, "GENERATION_NOT_FOUND",
                           "request_id names no generation of this replica");
  }
  if (terms.claim.number != 0 && !claims_.MayStart(key, terms.claim)) {
    return base::MakeError(absl::StatusCode::kUnavailable, "CLAIM_LOST",
                           "the claim of the request_id has expired: claim it again", options_.retry_after);
  }
  // With a shared log, starts need no claims, except under a key that a start without the store may have used.
  if (terms.claim.number == 0 && !key.empty() && shared_log() && claims_.IsKnown(key)) return ClaimRequiredError();
  if (terms.claim.number == 0 && !key.empty() && claims_.IsHeld(key)) {
    return base::MakeError(absl::StatusCode::kUnavailable, "REQUEST_ID_CLAIMED",
                           "another start with this request_id is under way: retry later", options_.retry_after);
  }
  return absl::OkStatus();
}

}  // namespace runnel::inference
