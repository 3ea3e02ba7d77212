#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/time/time.h"
#include "services/base/clock.h"

namespace runnel::inference {

// Which Link may start a generation with a request_id (LinkClaim in inference.proto), and which request_ids name
// generations of other replicas. A claim lasts for a lease, a name for as long as finished logs are kept. Not
// thread-safe.
class ClaimTable {
 public:
  struct Options {
    absl::Duration lease = absl::Seconds(10);
    absl::Duration keep_names = absl::Minutes(10);
    // Claims and names together. At the limit a new claim replaces the oldest name; if there is none, it is rejected.
    size_t max_entries = 65'536;
    const base::Clock* clock = &base::Clock::System();
  };
  // How a client refers to a claim: by its Link, and a number that it chooses.
  struct Ref {
    uint64_t link = 0;
    uint32_t number = 0;  // 0: none
    auto operator<=>(const Ref&) const = default;
  };
  enum class Outcome { kClaimed, kHeld, kNamed, kFull };

  explicit ClaimTable(const Options& options) : options_(options) {}
  ClaimTable(const ClaimTable&) = delete;
  ClaimTable& operator=(const ClaimTable&) = delete;

  // Claims `key` for `ref`. kHeld: another Link has a claim. kNamed: the key names a generation of another replica,
  // whose id is stored in `generation_id`; if that is `lost_id`, the name is dropped and the key claimed.
  Outcome Claim(const std::string& key, Ref ref, const std::string& lost_id, std::string* generation_id);
  // Whether `ref` holds the claim and the first half of its lease is not over.
  bool MayStart(const std::string& key, Ref ref);
  // Whether any Link holds a claim.
  bool IsHeld(const std::string& key);
  // Whether any Link holds a claim, or the key names a generation of another replica.
  bool IsKnown(const std::string& key);
  // Releases a claim. If `generation_id` is not empty, the key names that generation from then on.
  void Release(Ref ref, const std::string& generation_id);
  // Releases all claims of a Link.
  void ReleaseAll(uint64_t link);

  size_t size() const { return by_key_.size(); }

 private:
  struct Entry {
    std::string key;
    Ref ref;  // of a claim; none: this is a name
    absl::Duration at;
    std::string generation_id;  // of a name
  };
  using Entries = std::list<Entry>;  // the oldest first

  void Expire();
  void Erase(Entries* entries, Entries::iterator entry);
  Entries::iterator FindClaim(const std::string& key);

  const Options options_;
  Entries claims_;
  Entries names_;
  std::unordered_map<std::string, Entries::iterator> by_key_;  // into both
  std::map<Ref, Entries::iterator> by_ref_;
};

}  // namespace runnel::inference
