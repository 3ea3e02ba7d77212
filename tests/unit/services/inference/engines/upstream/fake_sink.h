#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/mutex.h"
#include "services/base/strings.h"
#include "services/inference/generation/engine.h"

namespace runnel::testing {

// Records the calls of an engine for one generation, including those that are repeated or after the end.
class FakeSink final : public inference::EventSink {
 public:
  explicit FakeSink(uint32_t choice_count = 1) : choices_(choice_count) {}

  void Begin() override {
    base::MutexLock lock(&mu_);
    ++begins_;
    changed_.NotifyAll();
  }
  void SetPrefillShare(float) override {}
  void SetPromptTokens(uint32_t, uint32_t) override {
    base::MutexLock lock(&mu_);
    faults_ += "SetPromptTokens; ";
  }
  void SetUsage(const inference::Usage& usage) override {
    base::MutexLock lock(&mu_);
    CheckOpenLocked("SetUsage");
    usage_ = usage;
  }
  void Append(uint32_t choice, std::string_view text, inference::Tokens tokens, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    CheckOpenLocked("Append");
    if (throws_at_ == text) throw std::bad_alloc();
    if (text.empty() || choices_[choice].reason != inference::FinishReason::kNone) faults_ += "bad Append; ";
    choices_[choice].text.append(text);
    choices_[choice].tokens += tokens.count;
    auto& logprobs = choices_[choice].logprobs;
    logprobs.insert(logprobs.end(), tokens.logprobs.begin(), tokens.logprobs.end());
    choices_[choice].last_part = nullptr;
    ++appends_;
    changed_.NotifyAll();
  }
  void AppendPart(uint32_t choice, const inference::PartPiece& piece, inference::Tokens tokens,
                  inference::WakeSet* wake) override {
    using inference::PartKind;
    if (piece.kind == PartKind::kText) return Append(choice, piece.content, std::move(tokens), wake);
    base::MutexLock lock(&mu_);
    CheckOpenLocked("AppendPart");
    Choice& to = choices_[choice];
    if (to.reason != inference::FinishReason::kNone) faults_ += "bad AppendPart; ";
    if (piece.content.empty() && piece.opening == nullptr) faults_ += "empty piece; ";
    to.tokens += tokens.count;
    to.logprobs.insert(to.logprobs.end(), tokens.logprobs.begin(), tokens.logprobs.end());
    if (piece.kind == PartKind::kToolCall) {
      if ((piece.opening != nullptr) != (piece.call == to.calls.size())) faults_ += "bad call; ";
      if (piece.opening != nullptr) {
        to.calls.push_back(absl::StrCat(piece.opening->id, " ", piece.opening->name, " "));
      }
      if (piece.call < to.calls.size()) to.calls[piece.call] += piece.content;
      to.last_part = nullptr;
    } else {
      std::string& part = piece.kind == PartKind::kReasoning ? to.reasoning : to.refusal;
      if (!part.empty() && to.last_part != &part) part += "|";
      part += piece.content;
      to.last_part = &part;
    }
    ++appends_;
    changed_.NotifyAll();
  }
  void EndChoice(uint32_t choice, inference::FinishReason reason, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    CheckOpenLocked("EndChoice");
    choices_[choice].reason = reason;
    for (const Choice& each : choices_) {
      if (each.reason == inference::FinishReason::kNone) return;
    }
    EndLocked();
  }
  void EndAll(inference::FinishReason reason, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    CheckOpenLocked("EndAll");
    for (Choice& each : choices_) {
      if (each.reason == inference::FinishReason::kNone) each.reason = reason;
    }
    EndLocked();
  }
  void Fail(inference::Failed failed, inference::WakeSet*) override {
    base::MutexLock lock(&mu_);
    CheckOpenLocked("Fail");
    failed_ = std::move(failed);
    EndLocked();
  }
  bool cancelled() const override { return cancelled_; }

  void Cancel() { cancelled_ = true; }
  // Append throws std::bad_alloc for this text.
  void ThrowAt(std::string text) {
    base::MutexLock lock(&mu_);
    throws_at_ = std::move(text);
  }

  struct Choice {
    std::string text;
    uint32_t tokens = 0;
    std::vector<inference::TokenLogprob> logprobs;
    inference::FinishReason reason = inference::FinishReason::kNone;
    // Their parts, with | where one ends and another begins.
    std::string reasoning;
    std::string refusal;
    std::vector<std::string> calls;  // "ID NAME ARGUMENTS"
    const std::string* last_part = nullptr;
  };
  // Each returns false after 10 s, which is a failure.
  bool WaitEnded() const {
    return WaitFor([this]() NO_THREAD_SAFETY_ANALYSIS { return ended_; });
  }
  bool WaitText(const std::string& text) const {
    return WaitFor([this, &text]() NO_THREAD_SAFETY_ANALYSIS { return choices_[0].text == text; });
  }
  bool WaitBegun() const {
    return WaitFor([this]() NO_THREAD_SAFETY_ANALYSIS { return begins_ > 0; });
  }

  // The whole story in one line: "Hello/2 stop; prompt 9", "Hel/1 -; failed engine_failed !retry: message", "think(Hm)
  // refuse(No) Hello/4 call(1 f {}) tool_calls; prompt 9". The output tokens of the usage are shown if they are not the
  // sum of the appends.
  std::string Story() const {
    base::MutexLock lock(&mu_);
    std::string story;
    for (const Choice& each : choices_) {
      if (!each.reasoning.empty()) absl::StrAppend(&story, "think(", each.reasoning, ") ");
      if (!each.refusal.empty()) absl::StrAppend(&story, "refuse(", each.refusal, ") ");
      absl::StrAppend(&story, each.text, "/", each.tokens, " ");
      for (const std::string& call : each.calls) absl::StrAppend(&story, "call(", call, ") ");
      absl::StrAppend(&story, ReasonName(each.reason), "; ");
    }
    absl::StrAppend(&story, "prompt ", usage_.prompt_tokens);
    uint32_t tokens = 0;
    for (const Choice& each : choices_) tokens += each.tokens;
    if (usage_.completion_tokens != tokens && usage_.completion_tokens > 0) {
      absl::StrAppend(&story, " output ", usage_.completion_tokens);
    }
    if (failed_.has_value()) {
      absl::StrAppend(&story, "; failed ", failed_->code,
                      failed_->retryable ? " retry: " : " !retry: ", failed_->message);
    }
    if (!ended_) story += "; open";
    if (!faults_.empty()) absl::StrAppend(&story, "; FAULTS: ", faults_);
    return story;
  }
  std::optional<inference::Failed> failed() const {
    base::MutexLock lock(&mu_);
    return failed_;
  }
  std::vector<inference::TokenLogprob> logprobs() const {
    base::MutexLock lock(&mu_);
    return choices_[0].logprobs;
  }
  inference::Usage usage() const {
    base::MutexLock lock(&mu_);
    return usage_;
  }
  int begins() const {
    base::MutexLock lock(&mu_);
    return begins_;
  }
  std::string text() const {
    base::MutexLock lock(&mu_);
    return choices_[0].text;
  }

 private:
  static std::string ReasonName(inference::FinishReason reason) {
    constexpr const char* kNames[] = {"-", "stop", "length", "cancelled", "content_filter", "tool_calls"};
    return kNames[static_cast<int>(reason)];
  }
  void CheckOpenLocked(const char* what) REQUIRES(mu_) {
    if (ended_) absl::StrAppend(&faults_, what, " after the end; ");
  }
  void EndLocked() REQUIRES(mu_) {
    ended_ = true;
    changed_.NotifyAll();
  }
  bool WaitFor(const std::function<bool()>& condition) const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    base::MutexLock lock(&mu_);
    while (!condition()) {
      if (!changed_.WaitUntil(&mu_, deadline)) return condition();
    }
    return true;
  }

  std::atomic<bool> cancelled_ = false;
  mutable base::Mutex mu_;
  mutable base::CondVar changed_;
  std::vector<Choice> choices_ GUARDED_BY(mu_);
  inference::Usage usage_ GUARDED_BY(mu_);
  std::optional<inference::Failed> failed_ GUARDED_BY(mu_);
  bool ended_ GUARDED_BY(mu_) = false;
  int begins_ GUARDED_BY(mu_) = 0;
  int appends_ GUARDED_BY(mu_) = 0;
  std::string faults_ GUARDED_BY(mu_);
  std::optional<std::string> throws_at_ GUARDED_BY(mu_);
};

}  // namespace runnel::testing
