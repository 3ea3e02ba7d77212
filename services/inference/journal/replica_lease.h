#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "services/inference/generation/journal.h"
#include "services/inference/journal/journal_context.h"
#include "services/inference/journal/store_commands.h"

namespace runnel::inference {

// Keeps this replica's lease in the store, which is how the others see that it lives, and watches theirs. Only the
// store's clock decides when a lease expires. A lease says when to take over, never who may write: one that is lost by
// mistake costs a move. Confined to the journal's thread.
class ReplicaLease {
 public:
  // `context` must outlive the lease. `run_id` differs for each start of a process.
  ReplicaLease(JournalContext* context, std::string run_id);

  void Watch(absl::AnyInvocable<void(Journal::Gone)> on_gone) { on_gone_ = std::move(on_gone); }
  // `on_lost` is called when the lease of this replica turns out to have expired: what it runs may have been taken
  // over.
  void OnLost(absl::AnyInvocable<void()> on_lost) { on_lost_ = std::move(on_lost); }

  // The store can be used. `address`: of this replica, host:port.
  void OnUp(std::string address);
  void OnDown();
  // Renews it when that is due.
  void Tick();

  // It has been taken at least once.
  bool taken() const { return taken_; }
  // From here on the prefix of this replica's ids does not change: if another replica has it, that is only reported.
  void FixPrefix() { fixed_ = true; }
  // Gives it up, so that this replica counts as gone at once.
  void Release(absl::AnyInvocable<void()> done);

 private:
  struct Replica {
    std::string address;
    bool gone = false;
    absl::Duration next_report;
    absl::Duration empty_since = absl::InfiniteDuration();  // it runs nothing
  };

  void Acquire();
  void OnAcquired(const std::vector<StoreReply>& replies);
  void Renew();
  void OnRenewed(const std::vector<std::string>& watched, const std::vector<StoreReply>& replies);
  void Register();
  void UpdateReplicas(const std::vector<std::string>& fields);
  void FindOrphans(const std::string& prefix);
  void OnOrphans(const std::string& prefix, const StoreReply& running);
  std::vector<std::string> Living() const;
  std::string Value() const { return run_id_ + "|" + address_; }

  JournalContext& context_;
  const std::string run_id_;
  std::string address_;
  absl::AnyInvocable<void(Journal::Gone)> on_gone_;
  absl::AnyInvocable<void()> on_lost_;
  bool up_ = false;
  bool busy_ = false;  // a reply is awaited
  bool held_ = false;
  bool taken_ = false;
  bool fixed_ = false;
  bool conflict_ = false;  // it was reported that another replica has the prefix
  absl::Duration next_renewal_;
  // After a connection, the others may not have renewed theirs yet.
  absl::Duration watch_from_;
  std::map<std::string, Replica> replicas_;  // the others
};

}  // namespace runnel::inference
