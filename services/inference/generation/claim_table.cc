#include "services/inference/generation/claim_table.h"

namespace runnel::inference {
namespace {

// A claim may be turned into a start in the first half of its lease only. The claims of the same start on other
// replicas are older by at most a quarter of the lease, so they are still held then.
constexpr int kStartShare = 2;

}  // namespace

ClaimTable::Outcome ClaimTable::Claim(const std::string& key, Ref ref, const std::string& lost_id,
                                      std::string* generation_id) {
  Expire();
  if (const auto found = by_key_.find(key); found != by_key_.end()) {
    const Entries::iterator entry = found->second;
    if (entry->ref.number == 0) {
      if (entry->generation_id != lost_id) {
        *generation_id = entry->generation_id;
        return Outcome::kNamed;
      }
      Erase(&names_, entry);
    } else if (entry->ref.link != ref.link) {
      return Outcome::kHeld;
    } else {
      Erase(&claims_, entry);
    }
  }
  if (by_key_.size() >= options_.max_entries) {
    if (names_.empty()) return Outcome::kFull;
    Erase(&names_, names_.begin());
  }
  // A number that is in use is released, and then names the new key only.
  Release(ref, "");
  claims_.push_back({key, ref, options_.clock->Monotonic(), ""});
  by_key_[key] = by_ref_[ref] = std::prev(claims_.end());
  return Outcome::kClaimed;
}

bool ClaimTable::MayStart(const std::string& key, Ref ref) {
  const Entries::iterator entry = FindClaim(key);
  return entry != claims_.end() && entry->ref == ref &&
         options_.clock->Monotonic() - entry->at <= options_.lease / kStartShare;
}

bool ClaimTable::IsHeld(const std::string& key) { return FindClaim(key) != claims_.end(); }

bool ClaimTable::IsKnown(const std::string& key) {
  Expire();
  return by_key_.contains(key);
}

void ClaimTable::Release(Ref ref, const std::string& generation_id) {
  const auto found = by_ref_.find(ref);
  if (found == by_ref_.end()) return;
  std::string key = found->second->key;
  Erase(&claims_, found->second);
  if (generation_id.empty()) return;
  names_.push_back({std::move(key), Ref(), options_.clock->Monotonic(), generation_id});
  by_key_[names_.back().key] = std::prev(names_.end());
}

void ClaimTable::ReleaseAll(uint64_t link) {
  for (auto it = by_ref_.lower_bound({link, 0}); it != by_ref_.end() && it->first.link == link;) {
    const Entries::iterator entry = (it++)->second;
    Erase(&claims_, entry);
  }
}

void ClaimTable::Expire() {
  const absl::Duration now = options_.clock->Monotonic();
  while (!claims_.empty() && now - claims_.front().at > options_.lease) Erase(&claims_, claims_.begin());
  while (!names_.empty() && now - names_.front().at > options_.keep_names) Erase(&names_, names_.begin());
}

void ClaimTable::Erase(Entries* entries, Entries::iterator entry) {
  by_key_.erase(entry->key);
  if (entry->ref.number != 0) by_ref_.erase(entry->ref);
  entries->erase(entry);
}

ClaimTable::Entries::iterator ClaimTable::FindClaim(const std::string& key) {
  Expire();
  const auto found = by_key_.find(key);
  return found == by_key_.end() || found->second->ref.number == 0 ? claims_.end() : found->second;
}

}  // namespace runnel::inference
