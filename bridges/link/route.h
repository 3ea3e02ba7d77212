#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bridges/base/log_position.h"

namespace runnel::bridge {

// The way of one request to the replica that has its generation, where replicas share their logs: a replica that does
// not run the generation names the one that does. Bounded by the deadline of the request, which is kept elsewhere.
// Confined to the io thread.
class Route {
 public:
  // Referrals that are followed in a row, before the next one is delayed. More of them only come from replicas that
  // disagree, which settles by itself or not at all.
  static constexpr int kMaxHops = 3;

  // The id prefix, with `gen_`, of the replica that was named last; empty: none.
  const std::string& prefix() const { return prefix_; }
  // That of the replica which could not help: not asked next if there is another one.
  const std::string& avoid() const { return avoid_; }
  // When the request may be sent again.
  absl::Duration retry_at() const { return retry_at_; }
  // With which the request ends at its deadline; OK: it has not been refused.
  const absl::Status& refusal() const { return refusal_; }

  // Takes OWNED_ELSEWHERE, LOG_UNAVAILABLE, or DRAINING of a replica that takes nothing over any more, from the replica
  // with the prefix `from`. False, without an effect, for any other refusal. `at`: how far the reader has
  // got; with progress, hops and waits begin again.
  bool Follow(const absl::Status& refusal, std::string_view from, LogPosition at, absl::Duration now);
  // The replica `from` has lost the generation to the one with the four characters `id_prefix`; empty: to any.
  void Move(std::string_view id_prefix, std::string_view from, LogPosition at, absl::Duration now);
  // The replica `from` did not reply.
  void Miss(const absl::Status& status, std::string_view from, absl::Duration now);
  // The named replica is not reached: any replica but `from` is asked.
  void Forget(std::string_view from);
  // Waits 50 ms, then twice as long each time up to 1 s, a part of it at random.
  void BackOff(absl::Duration now);
  // The replica `from` does not know the generation: the replica with the prefix `next` is asked at once.
  void Deny(std::string_view from, std::string_view next, absl::Duration now);
  // The prefixes of the replicas that do not know it, since the request was accepted last.
  const std::vector<std::string>& denied() const { return denied_; }
  // The request was accepted by the replica with this prefix.
  void Arrive(std::string_view prefix);

 private:
  void Hop(std::string_view id_prefix, std::string_view from, LogPosition at, absl::Duration now);

  std::string prefix_;
  std::string avoid_;
  std::vector<std::string> denied_;
  absl::Status refusal_;
  absl::Duration retry_at_;
  LogPosition at_;
  int hops_ = 0;
  int waits_ = 0;
};

}  // namespace runnel::bridge
