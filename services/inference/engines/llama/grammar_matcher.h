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

// Follows a text through a grammar, one code point at a time, within budgets of memory and time that hold whatever the
// grammar is.
//
// A grammar is followed by stacks of positions in it, one for each way in which the text so far can be read. Stacks
// share their lower parts: a node is a position and the node below it, and equal nodes are one. The set of nodes on top
// is a state; states and the steps between them are remembered, so most steps are a look-up. Not thread-safe; a copy is
// independent.
class GrammarMatcher {
 public:
  using State = uint32_t;
  // No text of the grammar begins like this one.
  static constexpr State kDead = 0;
  // A budget was exceeded. The matcher cannot be used any more.
  static constexpr State kExhausted = UINT32_MAX;

  using Deadline = std::chrono::steady_clock::time_point;

  // Of one matcher. A node takes 20 bytes, a member 4, a state 600, a step 40: less than 12 MiB together.
  struct Limits {
    size_t nodes = 200'000;
    size_t members = 400'000;  // of all states together
    size_t states = 4'000;
    size_t steps = 50'000;  // remembered, with other characters than ASCII
    size_t ways = 20'000;   // members of one state
  };

  explicit GrammarMatcher(std::shared_ptr<const Grammar> grammar) : GrammarMatcher(std::move(grammar), Limits{}) {}
  GrammarMatcher(std::shared_ptr<const Grammar> grammar, const Limits& limits);

  // Calls after `deadline` give kExhausted, those that are under way soon after it.
  void SetDeadline(Deadline deadline) { deadline_ = deadline; }

  State Begin();
  // Before what stands at a position of the grammar.
  State BeginAt(uint32_t position);
  State Advance(State from, uint32_t code_point);
  bool MayEnd(State state) const { return first_member(state) == kNothing; }
  // Whether any code point from `first` to `last` may follow.
  bool MayFollow(State state, uint32_t first, uint32_t last);

  // Half of a budget for memory is used.
  bool much() const;
  // Forgets all states but this one if much() is remembered. Returns its new number.
  State Trim(State keep);

  bool exhausted() const { return exhausted_; }
  // Of nodes, states and steps, roughly.
  size_t bytes() const;

 private:
  // The node of an empty stack: the text may end.
  static constexpr uint32_t kNothing = 0;
  struct Node {
    uint32_t position = 0;
    uint32_t below = 0;
    uint32_t seen = 0;  // the last search that met it
  };
  struct Members {
    size_t begin = 0;
    size_t end = 0;
    std::vector<State> ascii;  // where each character leads; empty until one was tried
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
  // Adds to `found_` the nodes that wait for a character, from `node` on.
  void Expand(uint32_t node);
  // The stack that goes on at `position`, or at what is below if nothing comes there.
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

// Whether all joints of the grammar are within the budgets, and all of them together by `deadline`: repetitions of what
// may be empty multiply the ways to read nothing. ResourceExhausted otherwise; InvalidArgument if it has no text at
// all.
absl::Status CheckGrammar(const std::shared_ptr<const Grammar>& grammar, GrammarMatcher::Deadline deadline);

}  // namespace runnel::inference
