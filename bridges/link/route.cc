#include "bridges/link/route.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "bridges/link/link_errors.h"
#include "services/base/grpc_status.h"
#include "services/base/random.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

constexpr absl::Duration kFirstWait = absl::Milliseconds(50);
constexpr absl::Duration kLastWait = absl::Seconds(1);
constexpr int kMaxDoublings = 5;
// Of a replica, in the ids of its generations.
constexpr size_t kPrefixBytes = 4;

}  // namespace

bool Route::Follow(const absl::Status& refusal, std::string_view from, LogPosition at, absl::Duration now) {
  const base::ErrorDetail detail = base::DetailOf(refusal);
  if (detail.reason == "OWNED_ELSEWHERE") {
    refusal_ = ReplicaUnreachable();
    const auto named = detail.metadata.find("id_prefix");
    Hop(named == detail.metadata.end() ? "" : named->second, from, at, now);
    return true;
  }
  if (detail.reason != "LOG_UNAVAILABLE" && detail.reason != "DRAINING") return false;
  Miss(refusal, from, now);
  return true;
}

void Route::Move(std::string_view id_prefix, std::string_view from, LogPosition at, absl::Duration now) {
  refusal_ = ReplicaUnreachable();
  Hop(id_prefix, from, at, now);
}

void Route::Miss(const absl::Status& status, std::string_view from, absl::Duration now) {
  refusal_ = status;
  Forget(from);
  BackOff(now);
}

void Route::Forget(std::string_view from) {
  prefix_.clear();
  avoid_ = std::string(from);
}

void Route::Hop(std::string_view id_prefix, std::string_view from, LogPosition at, absl::Duration now) {
  if (!(at == at_)) hops_ = waits_ = 0;
  at_ = at;
  Forget(from);
  if (id_prefix.size() == kPrefixBytes) {
    prefix_ = absl::StrCat("gen_", base::ToAbsl(id_prefix));
    avoid_.clear();
  }
  retry_at_ = now;
  if (++hops_ <= kMaxHops) return;
  hops_ = 0;
  BackOff(now);
}

void Route::BackOff(absl::Duration now) {
  const absl::Duration wait = std::min(kFirstWait * (1 << std::min(waits_++, kMaxDoublings)), kLastWait);
  retry_at_ = now + base::Jitter(wait, 0.5, 1.0);
}

void Route::Deny(std::string_view from, std::string_view next, absl::Duration now) {
  Forget(from);
  denied_.emplace_back(from);
  prefix_ = std::string(next);
  retry_at_ = now;
}

void Route::Arrive(std::string_view prefix) {
  denied_.clear();
  prefix_ = std::string(prefix);
  avoid_.clear();
  refusal_ = absl::OkStatus();
}

}  // namespace runnel::bridge
