#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "services/inference/engines/llama/grammar.h"

namespace runnel::inference {

// Follows a text through a grammar, one code point at a time, within budgets of memory and time that hold for every
// grammar.
//
// It keeps stacks of positions in the grammar, one for each way to read the text so far. Stacks share their lower
// parts: a node is a position and the node below it, and equal nodes exist once. The set of top nodes is a state;
// states and the steps between them are cached, so most steps are a look-up. Not thread-safe; a copy is independent.
class GrammarMatcher {
 public:
  using State = uint32_t;
  // No text of the grammar begins with this text.
  static constexpr State kDead = 0;
  // A budget was exceeded. The matcher is no longer usable.
  static constexpr State kExhausted = UINT32_MAX;

  using Deadline = std::chrono::steady_clock::time_point;

  // Limits of one matcher. A node takes 20 bytes, a member 4, a state 600, a step 40: less than 12 MiB together.
  struct Limits {
    size_t nodes = 200'000;
    size_t members = 400'000;  // of all states together
    size_t states = 4'000;
    size_t steps = 50'000;  // cached, for characters outside ASCII
    size_t ways = 20'000;   // members of one state
  };

  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar) : GrammarMatcher(std::move(grammar), Limits{}) {}
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, const Limits& limits);

  // Calls after `deadline` return kExhausted; a call under way does so soon after it.
  void SetDeadline(Deadline deadline) { deadline_ = deadline; }

  State Begin();
  // The state before the element at a position of the grammar.
  State BeginAt(uint32_t position);
  State Advance(State from, uint32_t code_point);
  bool MayEnd(State state) const { return first_member(state) == kNothing; }
  // Whether any code point from `first` to `last` may follow.
  bool MayFollow(State state, uint32_t first, uint32_t last);

  // Half of one of the memory budgets is used.
  bool much() const;
  // If much(), forgets all states but `keep`. Returns its new number.
  State Trim(State keep);

  bool exhausted() const { return exhausted_; }
  // The approximate memory of nodes, states and steps.
  size_t bytes() const;

 private:
  // The node of an empty stack: the text may end.
  static constexpr uint32_t kNothing = 0;
  struct Node {
    uint32_t position = 0;
    uint32_t below = 0;
    uint32_t seen = 0;  // the last search that visited it
  };
  struct Members {
    size_t begin = 0;
    size_t end = 0;
    std::vector<State> ascii;  // the next state by character; empty before the first step
  };
  static constexpr State kUnknown = UINT32_MAX - 1;

  uint32_t first_member(State state) const {
    const Members& at = states_[state];
    return at.begin == at.end ? UINT32_MAX : members_[at.begin];
  }
  std::span<const uint32_t> MembersOf(State state) const {
    return std::span(members_).subspan(states_[state].begin, states_[state].end - states_[state].begin);
  }
  State Compute(State from, uint32_t code_point);
  // Adds to `found_` the nodes reachable from `node` that expect a character.
  void Expand(uint32_t node);
  // The stack that continues at `position`, or with `below` if an alternative ends there.
  uint32_t Intern(uint32_t position, uint32_t below);
  void GrowTable();
  State InternFound();
  void BeginSearch();
  // False once a budget is exceeded.
  bool Spend();

  std::shared_ptr<const Grammar> grammar_;
  Limits limits_;
  Deadline deadline_ = Deadline::max();
  bool exhausted_ = false;
  uint32_t until_clock_ = 0;  // units of work

  std::vector<Node> nodes_;
  std::vector<uint32_t> table_;  // nodes by hash, open addressing
  uint32_t search_ = 0;
  std::vector<uint32_t> todo_;
  std::vector<uint32_t> found_;

  std::vector<uint32_t> members_;
  std::vector<Members> states_;
  std::unordered_multimap<uint64_t, State> states_by_hash_;
  std::unordered_map<uint64_t, State> steps_;  // by state and code point
};

// Checks that every joint of the grammar is within the budgets, and all of them together within `deadline`: repetitions
// of items that may be empty multiply the ways to read nothing. ResourceExhausted otherwise; InvalidArgument if no text
// matches the grammar.
absl::Status CheckGrammar(const std::shared_ptr<const Grammar>& grammar, GrammarMatcher::Deadline deadline);

}  // namespace runnel::inference
