#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/generation_request.h"
#include "services/inference/generation/log_segment.h"
#include "services/inference/generation/part_piece.h"

namespace runnel::inference {

class WakeSet;

// Receives the output of an engine for one generation. Called by one thread at a time, except cancelled(), which any
// thread may call. An append never waits for a reader. Calls after the end are ignored.
class EventSink {
 public:
  virtual ~EventSink() = default;

  // The engine has started to work on the generation, which no longer waits in a queue.
  virtual void Begin() = 0;

  // Updates the prompt token count once the engine knows it, and sets how many of them were found in a cache. Before
  // the last EndChoice.
  virtual void SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) = 0;

  // Replaces the usage, which otherwise counts the tokens of the appends, for an engine whose backend counts tokens
  // itself. Before the last EndChoice or EndAll.
  virtual void SetUsage(const Usage& usage) = 0;

  // The share of the prompt that has been processed, 0 to 1. An engine that does not know it never calls this.
  virtual void SetPrefillShare(float share) = 0;

  // Appends text (whole UTF-8 characters, not empty) that stands for `tokens`. Readers send it when `wake` is flushed:
  // an engine that steps many generations together appends for all of them and flushes once.
  virtual void Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) = 0;

  // Appends a piece of any kind, whose content is not empty unless it opens a tool call. A choice with too many parts,
  // or a call with an invalid id or name, ends the generation with `failed`; then cancelled() becomes true.
  virtual void AppendPart(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) = 0;

  // This choice gets no more output. When all choices have ended, `done` is appended.
  virtual void EndChoice(uint32_t choice, FinishReason reason, WakeSet* wake) = 0;

  // Ends all choices that have not ended.
  virtual void EndAll(FinishReason reason, WakeSet* wake) = 0;

  virtual void Fail(Failed failed, WakeSet* wake) = 0;

  // True once the generation has to stop. The engine checks it in every step, and then calls EndAll(kCancelled).
  virtual bool cancelled() const = 0;

  // Whether Tokens::ids are to be set: they are stored, so that another engine can continue the generation.
  virtual bool wants_token_ids() const { return false; }

  // What an append touches of the sink itself, so that an engine with thousands of generations can prefetch it.
  virtual std::span<const std::byte> memory() const { return {}; }
};

// A request that an engine has checked and prepared, with everything that the engine needs to run it.
class PreparedGeneration {
 public:
  virtual ~PreparedGeneration() = default;
  virtual uint32_t prompt_tokens() const = 0;
  // See Started::fingerprint; empty if the engine cannot know it.
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

  // The default model first. Never empty, and always the same.
  virtual std::vector<ModelInfo> Models() const = 0;

  // How many choices (not requests) the engine can work on at the same time; further ones wait in the manager.
  virtual uint32_t MaxRunning() const = 0;

  // Checks and tokenises. Called by several threads at the same time, none of which serves a connection: it may be
  // slow, but must return in bounded time and must not block on the engine's thread. InvalidArgument, with the field at
  // fault, for a request that the engine cannot run.
  virtual absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest& request) = 0;

  // Whether a generation of this request can be continued from its log, by this engine or one like it in another
  // process. `log` has what there is so far. A log with no output at all need not be continued: the manager begins it
  // again.
  virtual bool CanContinue(const GenerationRequest& /*request*/, const LogSegment& /*log*/) const { return false; }

  // As Prepare, for a generation that was begun elsewhere: the engine appends what follows the last event of `log`, and
  // ends those choices that `log` has not ended. `request` has the resolved seed. The sink's usage counts what is in
  // the log already. FailedPrecondition if it cannot be continued.
  virtual absl::StatusOr<std::unique_ptr<PreparedGeneration>> PrepareContinuation(
      const GenerationRequest& /*request*/, std::shared_ptr<const LogSegment> /*log*/) {
    return absl::FailedPreconditionError("this engine cannot continue a generation");
  }

  // Starts to work on a request that Prepare or PrepareContinuation returned, without blocking. The engine holds `sink`
  // until it has called the last EndChoice, EndAll or Fail, which it does for every generation that was started, even
  // if it is stopped.
  virtual void Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) = 0;

  // A hint that cancelled() of a sink has become true, for an engine that is waiting between steps.
  virtual void CancelRequested() = 0;

  // How long the engine has had work without taking a step; zero if it has no work, or takes steps. Each engine defines
  // what a step is. An engine in which every wait has a deadline need not override this.
  virtual absl::Duration StalledFor() const { return absl::ZeroDuration(); }

  // Ends every running generation with Fail("draining", retryable) and joins the engine's threads. The last call.
  virtual void Stop() = 0;
};

}  // namespace runnel::inference
