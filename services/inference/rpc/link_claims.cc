// How a LinkReactor answers LinkClaim.
#include <utility>

#include "services/base/grpc_status.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/rpc/link_reactor.h"

namespace runnel::inference {

void LinkReactor::HandleClaim(const v1::LinkClaim& command) {
  using Outcome = ClaimTable::Outcome;
  v1::LinkReply reply;
  v1::LinkClaimAnswer* answer = reply.mutable_claim();
  answer->set_claim(command.claim());
  if (command.claim() == 0 || command.request_id().empty()) {
    *answer->mutable_rejected() = base::ToRpcStatus(base::InvalidField("claim", "needs a number and a request_id"));
    return Reply(std::move(reply));
  }
  GenerationManager::ClaimResult claim = manager_->Claim(
      {claimant_, command.claim()}, {command.principal(), command.request_id(), command.lost_generation_id()});
  switch (claim.outcome) {
    case Outcome::kClaimed:
      answer->mutable_claimed();
      break;
    case Outcome::kHeld:
      answer->mutable_held();
      break;
    case Outcome::kNamed:
      answer->set_generation_id(std::move(claim.generation_id));
      break;
    case Outcome::kFull:
      *answer->mutable_rejected() = base::ToRpcStatus(TooManyClaimsError());
      break;
  }
  Reply(std::move(reply));
}

}  // namespace runnel::inference
