// How a LinkReactor handles LinkClaim.
#include <utility>

#include "services/base/grpc_status.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/rpc/link_reactor.h"

namespace runnel::inference {

void LinkReactor::HandleClaim(const v1::LinkClaim& command) {
  using Outcome = ClaimTable::Outcome;
  v1::LinkReply reply;
  v1::LinkClaimAnswer* result = reply.mutable_claim();
  result->set_claim(command.claim());
  if (command.claim() == 0 || command.request_id().empty()) {
    *result->mutable_rejected() =
        base::ToRpcStatus(base::InvalidField("claim", "must have a number above 0 and a request_id"));
    return Reply(std::move(reply));
  }
  GenerationManager::ClaimResult claim = manager_->Claim(
      {claimant_, command.claim()}, {command.principal(), command.request_id(), command.lost_generation_id()});
  switch (claim.outcome) {
    case Outcome::kClaimed:
      result->mutable_claimed();
      break;
    case Outcome::kHeld:
      result->mutable_held();
      break;
    case Outcome::kNamed:
      result->set_generation_id(std::move(claim.generation_id));
      break;
    case Outcome::kFull:
      *result->mutable_rejected() = base::ToRpcStatus(TooManyClaimsError());
      break;
  }
  Reply(std::move(reply));
}

}  // namespace runnel::inference
