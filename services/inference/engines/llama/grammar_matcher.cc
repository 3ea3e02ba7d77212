#include "services/inference/engines/llama/grammar_matcher.h"

#include <algorithm>
#include <utility>

namespace runnel::inference {
namespace {

constexpr uint32_t kAscii = 128;
// Units of work between two readings of the clock: about 20 us.
constexpr uint32_t kWorkPerLook = 512;
// Nodes and states are forgotten once this part of a limit is used, so that the next token has the rest.
constexpr size_t kTrimDivisor = 2;

uint64_t Mix(uint64_t x) {
  x ^= x >> 32;
  x *= 0x9e3779b97f4a7c15;
  return x ^ (x >> 29);
}

uint64_t HashOf(std::span<const uint32_t> numbers) {
  uint64_t hash = numbers.size();
  for (const uint32_t number : numbers) hash = Mix(hash ^ number) + number;
  return hash;
}

}  // namespace

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar, const Limits& limits)
    : grammar_(std::move(grammar)), limits_(limits), nodes_(1), table_(256, UINT32_MAX), states_(1) {}

bool GrammarMatcher::Spend() {
  if (exhausted_) return false;
  if (until_clock_ > 0) {
    --until_clock_;
    return true;
  }
  until_clock_ = kWorkPerLook;
  exhausted_ = std::chrono::steady_clock::now() > deadline_;
  return !exhausted_;
}

void GrammarMatcher::BeginSearch() {
  found_.clear();
  if (++search_ > 0) return;
  search_ = 1;
  for (Node& node : nodes_) node.seen = 0;
}

GrammarMatcher::State GrammarMatcher::Begin() {
  BeginSearch();
  for (const uint32_t alternative : grammar_->Alternatives(grammar_->root())) Expand(Intern(alternative, kNothing));
  return InternFound();
}

GrammarMatcher::State GrammarMatcher::BeginAt(uint32_t position) {
  BeginSearch();
  Expand(Intern(position, kNothing));
  return InternFound();
}

GrammarMatcher::State GrammarMatcher::Advance(State from, uint32_t code_point) {
  if (exhausted_) return kExhausted;
  if (from == kDead) return kDead;
  if (code_point < kAscii) {
    std::vector<State>& known = states_[from].ascii;
    if (known.empty()) known.assign(kAscii, kUnknown);
    if (known[code_point] != kUnknown) return known[code_point];
    const State to = Compute(from, code_point);
    states_[from].ascii[code_point] = to;
    return to;
  }
  const uint64_t key = (uint64_t{from} << 32) | code_point;
  if (const auto found = steps_.find(key); found != steps_.end()) return found->second;
  const State to = Compute(from, code_point);
  if (steps_.size() < limits_.steps) steps_.emplace(key, to);
  return to;
}

GrammarMatcher::State GrammarMatcher::Compute(State from, uint32_t code_point) {
  BeginSearch();
  for (const uint32_t node : MembersOf(from)) {
    if (!Spend()) return kExhausted;
    if (node == kNothing) continue;
    const auto [position, below, seen] = nodes_[node];
    if (grammar_->Matches(grammar_->at(position), code_point)) Expand(Intern(position + 1, below));
  }
  return InternFound();
}

bool GrammarMatcher::MayFollow(State state, uint32_t first, uint32_t last) {
  for (const uint32_t node : MembersOf(state)) {
    if (!Spend()) return false;
    if (node != kNothing && grammar_->MatchesAny(grammar_->at(nodes_[node].position), first, last)) return true;
  }
  return false;
}

void GrammarMatcher::Expand(uint32_t node) {
  todo_.push_back(node);
  while (!todo_.empty()) {
    const uint32_t next = todo_.back();
    todo_.pop_back();
    if (!Spend()) break;
    if (nodes_[next].seen == search_) continue;
    nodes_[next].seen = search_;
    const auto [position, below, seen] = nodes_[next];
    const Grammar::Element element = next == kNothing ? Grammar::Element{} : grammar_->at(position);
    if (element.kind != Grammar::Element::kRule) {
      found_.push_back(next);
      exhausted_ = exhausted_ || found_.size() > limits_.ways;
      continue;
    }
    const uint32_t after = Intern(position + 1, below);
    for (const uint32_t alternative : grammar_->Alternatives(element.value)) {
      todo_.push_back(Intern(alternative, after));
    }
    exhausted_ = exhausted_ || todo_.size() > limits_.nodes;
  }
  todo_.clear();
}

uint32_t GrammarMatcher::Intern(uint32_t position, uint32_t below) {
  if (grammar_->at(position).kind == Grammar::Element::kEnd) return below;
  const auto slot_of = [this](uint32_t at, uint32_t under) {
    return Mix((uint64_t{at} << 32) | under) & (table_.size() - 1);
  };
  for (size_t slot = slot_of(position, below);; slot = (slot + 1) & (table_.size() - 1)) {
    const uint32_t known = table_[slot];
    if (known != UINT32_MAX) {
      if (nodes_[known].position == position && nodes_[known].below == below) return known;
      continue;
    }
    if (nodes_.size() >= limits_.nodes) {
      exhausted_ = true;
      return kNothing;
    }
    table_[slot] = static_cast<uint32_t>(nodes_.size());
    nodes_.push_back({position, below, 0});
    break;
  }
  if (nodes_.size() * 2 > table_.size()) GrowTable();
  return static_cast<uint32_t>(nodes_.size() - 1);
}

void GrammarMatcher::GrowTable() {
  table_.assign(std::max<size_t>(256, table_.size() * 2), UINT32_MAX);
  for (uint32_t node = 1; node < nodes_.size(); ++node) {
    size_t slot = Mix((uint64_t{nodes_[node].position} << 32) | nodes_[node].below) & (table_.size() - 1);
    while (table_[slot] != UINT32_MAX) slot = (slot + 1) & (table_.size() - 1);
    table_[slot] = node;
  }
}

GrammarMatcher::State GrammarMatcher::InternFound() {
  if (exhausted_) return kExhausted;
  if (found_.empty()) return kDead;
  std::sort(found_.begin(), found_.end());
  const uint64_t hash = HashOf(found_);
  const auto [begin, end] = states_by_hash_.equal_range(hash);
  for (auto same = begin; same != end; ++same) {
    const auto members = MembersOf(same->second);
    if (std::equal(members.begin(), members.end(), found_.begin(), found_.end())) return same->second;
  }
  if (states_.size() >= limits_.states || members_.size() + found_.size() > limits_.members) {
    exhausted_ = true;
    return kExhausted;
  }
  Members added;
  added.begin = members_.size();
  members_.insert(members_.end(), found_.begin(), found_.end());
  added.end = members_.size();
  states_.push_back(std::move(added));
  const auto state = static_cast<State>(states_.size() - 1);
  states_by_hash_.emplace(hash, state);
  return state;
}

bool GrammarMatcher::much() const {
  return nodes_.size() > limits_.nodes / kTrimDivisor || members_.size() > limits_.members / kTrimDivisor ||
         states_.size() > limits_.states / kTrimDivisor || steps_.size() > limits_.steps / kTrimDivisor;
}

GrammarMatcher::State GrammarMatcher::Trim(State keep) {
  if (!much() || exhausted_ || keep == kDead) return keep;
  const auto members = MembersOf(keep);
  std::vector<uint32_t> kept(members.begin(), members.end());
  // A node has a higher number than the node below it.
  std::vector<bool> used(nodes_.size());
  for (const uint32_t node : kept) used[node] = true;
  for (size_t node = nodes_.size() - 1; node > 0; --node) {
    if (used[node]) used[nodes_[node].below] = true;
  }
  std::vector<uint32_t> moved(nodes_.size());
  size_t count = 1;
  for (size_t node = 1; node < nodes_.size(); ++node) {
    if (!used[node]) continue;
    moved[node] = static_cast<uint32_t>(count);
    nodes_[count++] = {nodes_[node].position, moved[nodes_[node].below], 0};
  }
  nodes_.resize(count);
  // GrowTable doubles it, so that the nodes fill at most half.
  size_t room = 128;
  while (room < count) room *= 2;
  table_.resize(room);
  GrowTable();
  members_.clear();
  states_.assign(1, {});
  states_by_hash_.clear();
  steps_.clear();
  found_.clear();
  for (const uint32_t node : kept) found_.push_back(moved[node]);
  return InternFound();
}

size_t GrammarMatcher::bytes() const {
  size_t tables = 0;
  for (const Members& state : states_) tables += state.ascii.capacity() * sizeof(State);
  return nodes_.capacity() * sizeof(Node) + table_.capacity() * sizeof(uint32_t) +
         members_.capacity() * sizeof(uint32_t) + states_.capacity() * sizeof(Members) + tables +
         (todo_.capacity() + found_.capacity()) * sizeof(uint32_t) + (steps_.size() + states_.size()) * 40;
}

absl::Status CheckGrammar(const std::shared_ptr<const Grammar>& grammar, GrammarMatcher::Deadline deadline) {
  GrammarMatcher matcher(grammar);
  matcher.SetDeadline(deadline);
  if (matcher.Begin() == GrammarMatcher::kDead) return absl::InvalidArgumentError("no text can match it");
  for (const uint32_t joint : grammar->joints()) {
    // The work on one joint does not count for the next.
    if (matcher.much()) matcher = GrammarMatcher(grammar);
    matcher.SetDeadline(deadline);
    matcher.BeginAt(joint);
    if (matcher.exhausted()) {
      return absl::ResourceExhaustedError("too many nested repetitions of items that may be empty: simplify them");
    }
  }
  return matcher.exhausted() ? absl::ResourceExhaustedError("too many alternatives") : absl::OkStatus();
}

}  // namespace runnel::inference
