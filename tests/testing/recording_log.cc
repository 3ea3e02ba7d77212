#include "tests/testing/recording_log.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace runnel::testing {

using inference::FinishReason;
using inference::PartKind;

namespace {

std::string Describe(const inference::TokenLogprob& logprob) {
  std::string text =
      absl::StrCat(absl::CEscape(logprob.token), "=", absl::Hex(std::bit_cast<uint32_t>(logprob.logprob)));
  for (const auto& top : logprob.top) absl::StrAppend(&text, "<", Describe(top));
  return text;
}

std::string Describe(const inference::LoggedDelta& delta, const std::string& content) {
  std::string text = absl::StrCat(delta.choice, ".", delta.part, " kind ", static_cast<int>(delta.kind), " '",
                                  absl::CEscape(content), "' ", delta.tokens, " tokens");
  if (delta.call != nullptr) absl::StrAppend(&text, " call ", delta.call->id, " ", delta.call->name);
  for (const auto& logprob : delta.logprobs) absl::StrAppend(&text, " ", Describe(logprob));
  if (!delta.token_ids.empty()) absl::StrAppend(&text, " ids ", absl::StrJoin(delta.token_ids, ","));
  return text;
}

}  // namespace

RecordingLog::RecordingLog(const Options& options) : options_(options), choices_(options.choice_count) {
  usage_.prompt_tokens = options.prompt_tokens;
}

RecordingLog::RecordingLog(const RecordingLog& from, size_t facts) : RecordingLog(from.options_) {
  std::vector<Fact> copied;
  {
    base::MutexLock lock(&from.mu_);
    copied.assign(from.facts_.begin(), from.facts_.begin() + static_cast<std::ptrdiff_t>(facts));
  }
  base::MutexLock lock(&mu_);
  for (Fact& fact : copied) AddLocked(std::move(fact));
}

void RecordingLog::AddLocked(Fact fact) {
  if (pending_usage_.has_value()) fact.usage = std::exchange(pending_usage_, std::nullopt);
  if (fact.usage.has_value()) usage_ = *fact.usage;
  if (fact.delta.has_value()) {
    const inference::LoggedDelta& delta = *fact.delta;
    Choice& choice = choices_[delta.choice];
    if (choice.ended || failed_.has_value()) faults_ += "delta after the end; ";
    if (delta.part == choice.parts.size()) {
      choice.parts.push_back(delta.kind);
      if (delta.kind == PartKind::kToolCall) choice.calls.push_back(delta.part);
    }
    choice.last_part = delta.part;
    choice.hidden_ids.clear();
    usage_.completion_tokens += delta.tokens;
    if (delta.kind == PartKind::kReasoning) usage_.reasoning_tokens += delta.tokens;
  }
  usage_.completion_tokens += fact.hidden_reasoning;
  usage_.reasoning_tokens += fact.hidden_reasoning;
  if (fact.ended.has_value()) choices_[fact.ended->choice].ended = true;
  facts_.push_back(std::move(fact));
  changed_.NotifyAll();
}

uint32_t RecordingLog::PartLocked(uint32_t index, const inference::PartPiece& piece) {
  Choice& choice = choices_[index];
  const auto opened = static_cast<uint32_t>(choice.parts.size());
  if (piece.kind == PartKind::kToolCall) {
    if ((piece.opening != nullptr) != (piece.call == choice.calls.size())) faults_ += "bad call; ";
    return piece.call < choice.calls.size() ? choice.calls[piece.call] : opened;
  }
  const bool continues = choice.last_part < opened && choice.parts[choice.last_part] == piece.kind;
  return continues ? choice.last_part : opened;
}

void RecordingLog::Append(uint32_t choice, std::string_view text, inference::Tokens tokens, inference::WakeSet* wake) {
  AppendPart(choice, inference::PartPiece::Text(text), std::move(tokens), wake);
}

void RecordingLog::AppendPart(uint32_t choice, const inference::PartPiece& piece, inference::Tokens tokens,
                              inference::WakeSet* /*wake*/) {
  base::MutexLock lock(&mu_);
  if (EndedLocked()) return;
  if (piece.content.empty() && piece.opening == nullptr) faults_ += "empty piece; ";
  Fact fact;
  if (piece.kind == PartKind::kReasoning && !options_.deliver_reasoning) {
    fact.hidden_reasoning = tokens.count;
    auto& hidden = choices_[choice].hidden_ids;
    hidden.insert(hidden.end(), tokens.ids.begin(), tokens.ids.end());
    return AddLocked(std::move(fact));
  }
  inference::LoggedDelta& delta = fact.delta.emplace();
  delta.elapsed_us = facts_.size();
  delta.choice = choice;
  delta.part = PartLocked(choice, piece);
  delta.kind = piece.kind;
  delta.length = static_cast<uint32_t>(piece.content.size());
  delta.tokens = tokens.count;
  if (piece.opening != nullptr) delta.call = std::make_shared<const inference::ToolCall>(*piece.opening);
  delta.logprobs = std::move(tokens.logprobs);
  delta.token_ids = choices_[choice].hidden_ids;
  delta.token_ids.insert(delta.token_ids.end(), tokens.ids.begin(), tokens.ids.end());
  fact.content = piece.content;
  AddLocked(std::move(fact));
}

void RecordingLog::SetPromptTokens(uint32_t prompt_tokens, uint32_t cached_prompt_tokens) {
  base::MutexLock lock(&mu_);
  if (!pending_usage_.has_value()) pending_usage_ = usage_;
  pending_usage_->prompt_tokens = prompt_tokens;
  pending_usage_->cached_prompt_tokens = cached_prompt_tokens;
}

void RecordingLog::SetUsage(const inference::Usage& usage) {
  base::MutexLock lock(&mu_);
  if (EndedLocked()) faults_ += "usage after the end; ";
  pending_usage_ = usage;
}

void RecordingLog::EndLocked(uint32_t choice, FinishReason reason) {
  if (choices_[choice].ended) return;
  Fact fact;
  fact.ended = inference::EndedChoice{choice, reason, LastSeqLocked()};
  AddLocked(std::move(fact));
}

void RecordingLog::EndChoice(uint32_t choice, FinishReason reason, inference::WakeSet* /*wake*/) {
  base::MutexLock lock(&mu_);
  if (choices_.at(choice).ended) faults_ += "a choice ends twice; ";
  EndLocked(choice, reason);
}

void RecordingLog::EndAll(FinishReason reason, inference::WakeSet* /*wake*/) {
  base::MutexLock lock(&mu_);
  for (uint32_t choice = 0; choice < choices_.size(); ++choice) EndLocked(choice, reason);
}

void RecordingLog::Fail(inference::Failed failed, inference::WakeSet* /*wake*/) {
  base::MutexLock lock(&mu_);
  if (EndedLocked()) faults_ += "failed after the end; ";
  failed_ = std::move(failed);
  changed_.NotifyAll();
}

void RecordingLog::Cancel() {
  base::MutexLock lock(&mu_);
  cancelled_ = true;
}

bool RecordingLog::cancelled() const {
  base::MutexLock lock(&mu_);
  return cancelled_;
}

bool RecordingLog::EndedLocked() const {
  return failed_.has_value() ||
         std::all_of(choices_.begin(), choices_.end(), [](const Choice& choice) { return choice.ended; });
}

uint64_t RecordingLog::LastSeqLocked() const {
  const auto deltas =
      std::count_if(facts_.begin(), facts_.end(), [](const Fact& fact) { return fact.delta.has_value(); });
  return 1 + static_cast<uint64_t>(deltas);
}

size_t RecordingLog::facts() const {
  base::MutexLock lock(&mu_);
  return facts_.size();
}

bool RecordingLog::WaitForFacts(size_t facts) const {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  base::MutexLock lock(&mu_);
  while (!EndedLocked() && facts_.size() < facts) {
    if (!changed_.WaitUntil(&mu_, deadline)) return EndedLocked() || facts_.size() >= facts;
  }
  return true;
}

std::shared_ptr<const inference::LogSegment> RecordingLog::Segment() const {
  base::MutexLock lock(&mu_);
  auto segment = std::make_shared<inference::LogSegment>();
  segment->started = inference::Started{"m", absl::UnixEpoch(), options_.prompt_tokens, "f"};
  segment->choice_count = options_.choice_count;
  for (const Fact& fact : facts_) {
    if (fact.delta.has_value()) segment->deltas.push_back(*fact.delta);
    segment->content += fact.content;
    if (fact.ended.has_value()) segment->ended.push_back(*fact.ended);
  }
  segment->usage = usage_;
  return segment;
}

std::string RecordingLog::Story() const {
  constexpr const char* kReasons[] = {"-", "stop", "length", "cancelled", "content_filter", "tool_calls"};
  base::MutexLock lock(&mu_);
  std::vector<std::string> stories(choices_.size());
  for (const Fact& fact : facts_) {
    if (fact.delta.has_value()) {
      absl::StrAppend(&stories[fact.delta->choice], Describe(*fact.delta, fact.content), "\n");
    }
    if (fact.ended.has_value()) {
      const char* const reason = kReasons[static_cast<int>(fact.ended->reason)];
      absl::StrAppend(&stories[fact.ended->choice], fact.ended->choice, " ends: ", reason, "\n");
    }
  }
  std::string story = absl::StrJoin(stories, "");
  if (failed_.has_value()) absl::StrAppend(&story, "failed ", failed_->code, ": ", failed_->message, "\n");
  if (!faults_.empty()) absl::StrAppend(&story, "FAULTS ", faults_, "\n");
  absl::StrAppend(&story, "usage ", usage_.prompt_tokens, " ", usage_.completion_tokens, " ",
                  usage_.cached_prompt_tokens, " ", usage_.reasoning_tokens, EndedLocked() ? "" : " open");
  return story;
}

std::string RecordingLog::Text(uint32_t choice) const {
  base::MutexLock lock(&mu_);
  std::string text;
  for (const Fact& fact : facts_) {
    if (fact.delta.has_value() && fact.delta->choice == choice) text += fact.content;
  }
  return text;
}

std::optional<inference::Failed> RecordingLog::failed() const {
  base::MutexLock lock(&mu_);
  return failed_;
}

}  // namespace runnel::testing
