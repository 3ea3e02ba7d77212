#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/mutex.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/log_segment.h"

namespace runnel::testing {

// An EventSink that keeps what an engine appends as a log with token ids, for tests of continuation: the log can be cut
// after each of its facts and given to another engine, which then appends to the cut log. Thread-safe.
class RecordingLog final : public inference::EventSink {
 public:
  struct Options {
    uint32_t choice_count = 1;
    uint32_t prompt_tokens = 0;
    bool wants_token_ids = true;
    bool deliver_reasoning = true;  // false: reasoning is counted, and its ids are those of the next delta
  };
  explicit RecordingLog(const Options& options);
  // With the first `facts` facts of another log.
  RecordingLog(const RecordingLog& from, size_t facts);

  // A fact is a delta or the end of a choice, with the usage that the engine has set before.
  size_t facts() const EXCLUDES(mu_);
  std::shared_ptr<const inference::LogSegment> Segment() const EXCLUDES(mu_);
  // The deltas and the end of each choice, each on one line with everything in it, and the usage. Which choice is ahead
  // of another one is not told: it depends on what was held where the log was cut.
  std::string Story() const EXCLUDES(mu_);
  // The content of all parts of a choice.
  std::string Text(uint32_t choice = 0) const EXCLUDES(mu_);
  std::optional<inference::Failed> failed() const EXCLUDES(mu_);

  // Each returns false after 30 s.
  bool WaitForEnd() const EXCLUDES(mu_) { return WaitForFacts(SIZE_MAX); }
  bool WaitForFacts(size_t facts) const EXCLUDES(mu_);

  void Cancel() EXCLUDES(mu_);

  // EventSink.
  void Begin() override {}
  void SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) override EXCLUDES(mu_);
  void SetUsage(const inference::Usage& usage) override EXCLUDES(mu_);
  void SetPrefillShare(float) override {}
  void Append(uint32_t choice, std::string_view text, inference::Tokens tokens, inference::WakeSet* wake) override
      EXCLUDES(mu_);
  void AppendPart(uint32_t choice, const inference::PartPiece& piece, inference::Tokens tokens,
                  inference::WakeSet* wake) override EXCLUDES(mu_);
  void EndChoice(uint32_t choice, inference::FinishReason reason, inference::WakeSet* wake) override EXCLUDES(mu_);
  void EndAll(inference::FinishReason reason, inference::WakeSet* wake) override EXCLUDES(mu_);
  void Fail(inference::Failed failed, inference::WakeSet* wake) override EXCLUDES(mu_);
  bool cancelled() const override EXCLUDES(mu_);
  bool wants_token_ids() const override { return options_.wants_token_ids; }

 private:
  struct Fact {
    std::optional<inference::LoggedDelta> delta;
    std::string content;  // of the delta
    std::optional<inference::EndedChoice> ended;
    std::optional<inference::Usage> usage;  // as set before it
    uint32_t hidden_reasoning = 0;
    std::vector<uint32_t> hidden_ids;
  };
  struct Choice {
    std::vector<inference::PartKind> parts;
    std::vector<uint32_t> calls;  // their parts
    uint32_t last_part = UINT32_MAX;
    std::vector<uint32_t> hidden_ids;
    bool ended = false;
  };

  void AddLocked(Fact fact) REQUIRES(mu_);
  void EndLocked(uint32_t choice, inference::FinishReason reason) REQUIRES(mu_);
  uint32_t PartLocked(uint32_t choice, const inference::PartPiece& piece) REQUIRES(mu_);
  bool EndedLocked() const REQUIRES(mu_);
  uint64_t LastSeqLocked() const REQUIRES(mu_);

  const Options options_;
  mutable base::Mutex mu_;
  mutable base::CondVar changed_;
  std::vector<Fact> facts_ GUARDED_BY(mu_);
  std::vector<Choice> choices_ GUARDED_BY(mu_);
  inference::Usage usage_ GUARDED_BY(mu_);
  std::optional<inference::Usage> pending_usage_ GUARDED_BY(mu_);
  std::optional<inference::Failed> failed_ GUARDED_BY(mu_);
  std::string faults_ GUARDED_BY(mu_);
  bool cancelled_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::testing
