#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/generation_request.h"

namespace runnel::inference {

class WakeSet;

// Where an engine puts what it makes for one generation. One thread at a time calls it, but for cancelled(), which any
// thread may. An append never waits for a reader. After Finish or Fail every further call is ignored.
class EventSink {
 public:
  virtual ~EventSink() = default;

  // The engine begins to work on it: it no longer waits in a queue.
  virtual void Begin() = 0;

  // Corrects what Prepare said, where only the engine's work tells it, and says for how many of them nothing had to be
  // done. Before the last EndChoice.
  virtual void SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) = 0;

  // How much of the prompt has been read, 0 to 1. An engine that does not know never says it.
  virtual void SetPrefillShare(float share) = 0;

  // Appends text (whole UTF-8 characters, not empty) that stands for `tokens`. Readers learn of it when `wake` is
  // flushed: an engine that steps many generations at once appends for all of them and flushes once.
  virtual void Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) = 0;

  // No more text of this choice will come. When all choices have ended, `done` is appended.
  virtual void EndChoice(uint32_t choice, FinishReason reason, WakeSet* wake) = 0;

  // Ends all choices that have not ended.
  virtual void EndAll(FinishReason reason, WakeSet* wake) = 0;

  virtual void Fail(Failed failed, WakeSet* wake) = 0;

  // True once the generation has to stop. The engine looks at every step and then calls EndAll(kCancelled).
  virtual bool cancelled() const = 0;
};

// A request that an engine has checked and prepared, with whatever it needs to run it.
class PreparedGeneration {
 public:
  virtual ~PreparedGeneration() = default;
  virtual uint32_t prompt_tokens() const = 0;
  // As Started::fingerprint; empty if the engine cannot know.
  virtual std::string fingerprint() const { return {}; }
};

struct ModelInfo {
  std::string id;
  std::string engine;  // scripted, llama or upstream
  uint32_t context_length = 0;
  absl::Time created_at;
};

// Turns requests into tokens, many at once. Thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;

  // The default model first; never empty, the same for the engine's whole life.
  virtual std::vector<ModelInfo> Models() const = 0;

  // How many generations it can work on at once; those beyond wait in the manager. A count of choices, not of requests.
  virtual uint32_t MaxRunning() const = 0;

  // Checks and tokenises. Called by several threads at once, none of which serves a connection: it may take its time,
  // but must return in bounded time and must not block on the engine's own thread. InvalidArgument for what cannot be
  // run, with the field at fault.
  virtual absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest& request) = 0;

  // Begins to work on what Prepare made, and returns at once. The engine holds `sink` until it has called the last
  // EndChoice, EndAll or Fail, which it does for every generation that was started, also when it is stopped.
  virtual void Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) = 0;

  // A hint that some sink's cancelled() has become true, for an engine that is not stepping.
  virtual void CancelRequested() = 0;

  // For how long it has had work without taking a step; zero if it has none, or takes steps. What a step is, the engine
  // says. An engine whose every wait has a deadline of its own need not say anything.
  virtual absl::Duration StalledFor() const { return absl::ZeroDuration(); }

  // Ends everything that runs with Fail("draining", retryable) and joins the engine's threads. Called once, last.
  virtual void Stop() = 0;
};

}  // namespace runnel::inference
