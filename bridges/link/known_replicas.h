#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "bridges/base/bridge_metrics.h"
#include "services/base/clock.h"
#include "services/base/mutex.h"

namespace runnel::bridge {

// What the process remembers of the replicas that it has reached or was pointed to, so that all of its io threads can
// tell a generation that is lost from one that never was, and a replica that may come back from one that will not.
//
// A run is one process of a replica; its ids begin with a prefix of its own. A run that is not reached any more may
// come back for the recovery timeout and counts as lost after it. It is lost at once if its address belongs to another
// run or is not listed any more, and stopped if it has said so. Runs are forgotten when their logs would have been
// purged.
//
// Thread-safe.
class KnownReplicas {
 public:
  struct Options {
    absl::Duration recovery_timeout = absl::Seconds(30);
    // Runs remembered. Beyond, the one that was not reached for the longest time is forgotten.
    size_t max_runs = 1024;
    const base::Clock* clock = &base::Clock::System();
  };

  explicit KnownReplicas(const Options& options) : options_(options) {}

  // The addresses that --inference stands for at present.
  void OnListed(const std::vector<std::string>& addresses) EXCLUDES(mu_);

  struct Hello {
    std::string address;
    std::string id_prefix;  // with `gen_`
    absl::Duration retention;
    bool claims = false;  // it knows LinkClaim
  };
  // A Link to a run is up; as often OnDown follows. `stopped`: the run has said that it keeps no log any more.
  void OnUp(const Hello& hello) EXCLUDES(mu_);
  void OnDown(const std::string& id_prefix, bool stopped) EXCLUDES(mu_);
  // No process listens at an address that was not reached yet, so none there knows a key. (One that drains listens.)
  void OnRefused(const std::string& address) EXCLUDES(mu_);
  // Another replica has named a generation of this run, which may never have been reached.
  void OnHeardOf(std::string_view generation_id) EXCLUDES(mu_);

  enum class Run {
    kUnknown,
    kReached,  // by some thread of the process
    kAway,     // may come back
    kLost,
    kStopped,
  };
  // The run that has started a generation.
  Run Find(std::string_view generation_id) const EXCLUDES(mu_);

  // `reached`: of the calling thread. Whether a replica that it does not reach may keep, as far as the process knows,
  // a generation that a request_id names: one that was reached within the recovery timeout, or one of the first
  // addresses ever listed, for as long, if nothing is known of it yet.
  bool MayHoldKeys(const std::vector<std::string_view>& reached_prefixes) const EXCLUDES(mu_);
  // Whether an address that is listed and not reached may belong to a run that the process does not know: it is listed,
  // or was last reached, within the recovery timeout.
  bool MayKeepUnknown(const std::vector<std::string_view>& reached_addresses) const EXCLUDES(mu_);

  size_t runs() const EXCLUDES(mu_);

 private:
  struct RunEntry {
    std::string address;  // empty: only heard of
    absl::Duration last_seen;
    absl::Duration retention;
    size_t links = 0;
    bool claims = false;
    bool stopped = false;
    bool replaced = false;  // another run was reached at its address
  };
  struct Address {
    absl::Duration last_seen;  // or when it was first listed
    bool first = false;        // among the first that were listed
    bool answered = false;     // it was reached, or refused the connection
    bool listed = true;
  };

  bool AwayLocked(const RunEntry& run) const REQUIRES(mu_);
  void ForgetLocked() REQUIRES(mu_);

  const Options options_;
  mutable base::Mutex mu_;
  std::map<std::string, RunEntry, std::less<>> runs_ GUARDED_BY(mu_);  // by prefix
  std::map<std::string, Address, std::less<>> addresses_ GUARDED_BY(mu_);
  bool listed_ GUARDED_BY(mu_) = false;
};

// Counts a reader that gets generation_lost, by what is known of the replica that kept the generation.
void CountLost(KnownReplicas::Run run, BridgeMetrics* metrics);

}  // namespace runnel::bridge
