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

// The replicas that the process has reached or knows of, so that all of its io threads can distinguish a lost
// generation from one that never existed, and a replica that may come back from one that will not.
//
// A run is one process of a replica; the ids of its generations begin with its prefix. A run that is not reached any
// more may come back for the recovery timeout and counts as lost after that. It is lost immediately if its address
// belongs to another run or is not listed any more, and stopped if it has announced that. A run is forgotten when its
// logs would have been purged.
//
// Thread-safe.
class KnownReplicas {
 public:
  struct Options {
    absl::Duration recovery_timeout = absl::Seconds(30);
    // The limit of runs. Above it, the one that was unreached for the longest time is forgotten.
    size_t max_runs = 1024;
    const base::Clock* clock = &base::Clock::System();
  };

  explicit KnownReplicas(const Options& options) : options_(options) {}

  // The addresses that --inference lists at present.
  void OnListed(const std::vector<std::string>& addresses) EXCLUDES(mu_);

  struct Hello {
    std::string address;
    std::string id_prefix;  // with `gen_`
    absl::Duration retention;
    bool claims = false;      // it supports LinkClaim
    bool shared_log = false;  // other replicas can continue its generations
  };
  // A Link to a run is up; an OnDown follows each OnUp. `stopped`: the run has announced that it keeps no log any more.
  void OnUp(const Hello& hello) EXCLUDES(mu_);
  void OnDown(const std::string& id_prefix, bool stopped) EXCLUDES(mu_);
  // No process listens at an address that was not reached yet, so none there knows a key. (A draining one listens.)
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
  // The run that started a generation. One that shares its logs is never lost or stopped: another replica has its
  // generations, and only the service knows which of them exist.
  Run Find(std::string_view generation_id) const EXCLUDES(mu_);

  // Whether the run that started a generation is known, and has kept its logs for itself, or shares them. Both are
  // false for an unknown run.
  bool KeepsAlone(std::string_view generation_id) const EXCLUDES(mu_);
  bool SharesLogs(std::string_view generation_id) const EXCLUDES(mu_);

  // Whether a replica that the calling thread does not reach may keep a generation that a request_id names, as far as
  // the process knows: one that was reached within the recovery timeout, or, for as long, one of the first addresses
  // ever listed of which nothing is known yet.
  bool MayHoldKeys(const std::vector<std::string_view>& reached_prefixes) const EXCLUDES(mu_);
  // Whether an address that is listed and not reached may belong to an unknown run: it was first listed, or last
  // reached, within the recovery timeout.
  bool MayKeepUnknown(const std::vector<std::string_view>& reached_addresses) const EXCLUDES(mu_);

  size_t runs() const EXCLUDES(mu_);

 private:
  struct RunEntry {
    std::string address;  // empty: only named by another replica
    absl::Duration last_seen;
    absl::Duration retention;
    size_t links = 0;
    bool claims = false;
    bool shared_log = false;
    bool heard_of = false;  // only named by another replica
    bool stopped = false;
    bool replaced = false;  // another run was reached at its address
  };
  struct Address {
    absl::Duration last_seen;  // or when it was first listed
    bool first = false;        // among the first that were listed
    bool contacted = false;    // it was reached, or refused the connection
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

// Counts a reader that receives generation_lost, by what is known of the replica that kept the generation.
void CountLost(KnownReplicas::Run run, BridgeMetrics* metrics);

}  // namespace runnel::bridge
