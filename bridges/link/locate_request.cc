#include "bridges/link/locate_request.h"

#include "bridges/link/grpc_stub.h"
#include "bridges/link/link_errors.h"

namespace runnel::bridge {

LocateRequest::LocateRequest(ReplicaRouter* router, std::shared_ptr<Search> search, ReplicaRouter::OnLocated done)
    : router_(router),
      search_(std::move(search)),
      done_(std::move(done)),
      min_round_(Find() == nullptr ? router->refresh_() : 0) {}

bool LocateRequest::Retry(absl::Duration now) {
  Search& search = *search_;
  const Link* link = Find();
  if (router_->stopped_) {
    done_(BridgeStopping());
  } else if (search.route.retry_at() > now && now < search.deadline) {
    router_->ScheduleRetry(search.route.retry_at());
    return false;
  } else if (link != nullptr && (search.route.refusal().ok() || now < search.deadline)) {
    done_(Located{link->stub(), link->id_prefix(), link->shared_log()});
  } else if (link == nullptr && router_->MayReachMore(min_round_) && now < search.deadline) {
    return false;
  } else if (!search.route.refusal().ok()) {
    done_(search.route.refusal());
  } else {
    done_(search.generation_id.empty() ? ServiceUnreachable() : router_->CountedRefusal(search.generation_id, false));
  }
  delete this;
  return true;
}

Link* LocateRequest::Find() const {
  if (search_->generation_id.empty()) return router_->links_.FindAny();
  return router_->links_.FindKeeper(search_->generation_id, &search_->route);
}

}  // namespace runnel::bridge
