#pragma once

#include <string>

#include "absl/functional/any_invocable.h"

namespace runnel::inference {

// Asks a replica whether it has a generation in its memory, before another one takes the generation over. Thread-safe.
class OwnerProbe {
 public:
  enum class Answer {
    kHas,
    kHasNot,
    kRefused,  // nothing listens at its address
    kSilent,   // no answer in time, or one that says nothing: it may be stopped, or cut off
  };
  struct Question {
    std::string address;  // host:port
    std::string generation_id;
    std::string principal;
  };
  // Runs exactly once, with no lock held, on any thread or within the call.
  using AnswerCallback = absl::AnyInvocable<void(Answer)>;

  virtual ~OwnerProbe() = default;
  virtual void Ask(Question question, AnswerCallback done) = 0;
  // Ends the questions without an answer, and returns when all callbacks have returned.
  virtual void Stop() = 0;
};

}  // namespace runnel::inference
