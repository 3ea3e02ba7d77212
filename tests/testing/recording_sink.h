#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/base/mutex.h"
#include "services/inference/generation/engine.h"

namespace runnel::testing {

// An EventSink that records an engine's calls, for tests of engines without a service around them. Thread-safe.
class RecordingSink final : public inference::EventSink {
 public:
  // A part that is not text, with all of its pieces.
  struct Part {
    inference::PartKind kind = inference::PartKind::kText;
    inference::ToolCall call;
    std::string content;
    size_t pieces = 0;
  };
  struct Choice {
    std::string text;
    std::vector<Part> parts;  // calls by number, and others where their kind changes
    std::vector<std::string> deltas;
    uint32_t tokens = 0;
    std::vector<inference::TokenLogprob> logprobs;
    inference::FinishReason reason = inference::FinishReason::kNone;
  };
  struct Record {
    std::vector<Choice> choices;
    std::optional<inference::Failed> failed;
    std::optional<inference::Usage> usage;
    uint32_t cached_prompt_tokens = 0;
    bool begun = false;
    bool appended_after_end = false;
  };

  explicit RecordingSink(uint32_t choice_count = 1) { record_.choices.resize(choice_count); }

  // cancelled() becomes true once the text has this many deltas. 0: immediately.
  void CancelAfter(size_t deltas) {
    base::MutexLock lock(&mu_);
    cancel_after_ = deltas;
  }

  // Waits for the end, at most 30 s, and returns the record so far. The caller checks the finish reasons.
  Record WaitForEnd() { return WaitFor(SIZE_MAX, false); }
  // Like WaitForEnd, but also return after this many deltas, or after Begin.
  Record WaitForDeltas(size_t deltas) { return WaitFor(deltas, false); }
  Record WaitForBegin() { return WaitFor(SIZE_MAX, true); }
  bool ended() const {
    base::MutexLock lock(&mu_);
    return EndedLocked();
  }

  void Begin() override {
    base::MutexLock lock(&mu_);
    record_.begun = true;
    changed_.NotifyAll();
  }
  void SetPromptTokens(uint32_t, uint32_t cached_prompt_tokens) override {
    base::MutexLock lock(&mu_);
    record_.cached_prompt_tokens = cached_prompt_tokens;
  }
  void SetUsage(const inference::Usage& usage) override {
    base::MutexLock lock(&mu_);
    record_.usage = usage;
  }
  void SetPrefillShare(float) override {}
  void Append(uint32_t choice, std::string_view text, inference::Tokens tokens, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    Choice& to = record_.choices.at(choice);
    if (to.reason != inference::FinishReason::kNone || record_.failed.has_value()) record_.appended_after_end = true;
    to.text += text;
    to.deltas.emplace_back(text);
    to.tokens += tokens.count;
    to.logprobs.insert(to.logprobs.end(), tokens.logprobs.begin(), tokens.logprobs.end());
    ++deltas_;
    changed_.NotifyAll();
  }
  void AppendPart(uint32_t choice, const inference::PartPiece& piece, inference::Tokens tokens,
                  inference::WakeSet* wake) override {
    if (piece.kind == inference::PartKind::kText) return Append(choice, piece.content, std::move(tokens), wake);
    base::MutexLock lock(&mu_);
    Choice& to = record_.choices.at(choice);
    if (to.reason != inference::FinishReason::kNone || record_.failed.has_value()) record_.appended_after_end = true;
    to.tokens += tokens.count;
    AddPart(piece, &to);
    ++deltas_;
    changed_.NotifyAll();
  }
  void EndChoice(uint32_t choice, inference::FinishReason reason, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    record_.choices.at(choice).reason = reason;
    changed_.NotifyAll();
  }
  void EndAll(inference::FinishReason reason, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    for (Choice& choice : record_.choices) {
      if (choice.reason == inference::FinishReason::kNone) choice.reason = reason;
    }
    changed_.NotifyAll();
  }
  void Fail(inference::Failed failed, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    record_.failed = std::move(failed);
    changed_.NotifyAll();
  }
  bool cancelled() const override {
    base::MutexLock lock(&mu_);
    return deltas_ >= cancel_after_;
  }

 private:
  static void AddPart(const inference::PartPiece& piece, Choice* to) {
    Part* part = to->parts.empty() || piece.opening != nullptr ? nullptr : &to->parts.back();
    if (piece.kind == inference::PartKind::kToolCall) {
      uint32_t number = 0;
      for (Part& each : to->parts) {
        if (each.kind == piece.kind && number++ == piece.call) part = &each;
      }
    } else if (part != nullptr && part->kind != piece.kind) {
      part = nullptr;
    }
    if (part == nullptr) {
      part = &to->parts.emplace_back();
      part->kind = piece.kind;
      if (piece.opening != nullptr) part->call = *piece.opening;
    }
    part->content += piece.content;
    ++part->pieces;
  }

  bool EndedLocked() const REQUIRES(mu_) {
    if (record_.failed.has_value()) return true;
    for (const Choice& choice : record_.choices) {
      if (choice.reason == inference::FinishReason::kNone) return false;
    }
    return true;
  }
  Record WaitFor(size_t deltas, bool begin) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    base::MutexLock lock(&mu_);
    while (!EndedLocked() && deltas_ < deltas && !(begin && record_.begun)) {
      if (!changed_.WaitUntil(&mu_, deadline)) break;
    }
    return record_;
  }

  mutable base::Mutex mu_;
  base::CondVar changed_;
  Record record_ GUARDED_BY(mu_);
  size_t deltas_ GUARDED_BY(mu_) = 0;
  size_t cancel_after_ GUARDED_BY(mu_) = SIZE_MAX;
};

}  // namespace runnel::testing
