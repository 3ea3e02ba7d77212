#include "services/inference/engines/upstream/upstream_output.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/inference/engines/upstream/upstream_failure.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxIdBytes = 256;

size_t LogprobBytes(const TokenLogprob& logprob) {
  size_t bytes = sizeof(TokenLogprob) + logprob.token.size();
  for (const TokenLogprob& each : logprob.top) bytes += sizeof(TokenLogprob) + each.token.size();
  return bytes;
}

std::string_view StripBlanks(std::string_view text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  return text;
}

}  // namespace

UpstreamOutput::UpstreamOutput(uint32_t choice_count, const Options& options, EventSink* sink)
    : options_(options), sink_(sink), parser_(options.limits), choices_(choice_count), open_choices_(choice_count) {
  if (options_.stop.empty()) return;
  for (Choice& choice : choices_) choice.stops.emplace(options_.stop);
  const std::string& tail = options_.logged_tail;
  if (!tail.empty()) choices_[0].shown_bytes = tail.size() - choices_[0].stops->Push(tail).size();
}

void UpstreamOutput::Add(std::string_view bytes, WakeSet* wake) {
  if (ended()) return;
  const absl::Status status = parser_.Add(bytes, [&](const auto& event) { return TakeEvent(event, wake); });
  if (status.ok()) return;
  if (complete()) {
    EndDone(wake);
  } else {
    Fail({"engine_failed", absl::StrCat("the upstream sent ", status.message()), false}, UpstreamVerdict::kFaulty,
         wake);
  }
}

void UpstreamOutput::Finish(Failed cut, WakeSet* wake) {
  if (ended()) return;
  if (complete()) {
    EndDone(wake);
  } else {
    Fail(std::move(cut), UpstreamVerdict::kFaulty, wake);
  }
}

void UpstreamOutput::Cancel(WakeSet* wake) {
  if (ended()) return;
  if (complete()) {
    EndDone(wake);
    return;
  }
  outcome_ = "cancelled";
  reported_ = true;
  ReportUsage(/*by_server=*/false);
  sink_->EndAll(FinishReason::kCancelled, wake);
}

bool UpstreamOutput::TakeEvent(const UpstreamStreamParser::Event& event, WakeSet* wake) {
  const std::string_view data = StripBlanks(event.data);
  if (data == "[DONE]") {
    if (complete()) {
      EndDone(wake);
    } else {
      Fail(Unavailable("the upstream ended the stream before every choice had finished"), UpstreamVerdict::kFaulty,
           wake);
    }
    return false;
  }
  if (data.empty()) return true;
  // An error after every choice has finished is ignored.
  if (event.name == "error" && !complete()) {
    FailByError(ParseUpstreamError(data), wake);
    return false;
  }
  auto chunk = ParseUpstreamChunk(data);
  if (!chunk.ok() && complete()) return true;
  if (!chunk.ok()) {
    Fail({"engine_failed", absl::StrCat("the upstream sent ", chunk.status().message()), false},
         UpstreamVerdict::kFaulty, wake);
    return false;
  }
  TakeChunk(*chunk, wake);
  return !ended();
}

void UpstreamOutput::TakeChunk(const UpstreamChunk& chunk, WakeSet* wake) {
  // With several choices, the usage of a chunk that has a part of one may be that of this choice only.
  const bool whole_usage = chunk.usage.has_value() && (choices_.size() == 1 || chunk.fragments.empty());
  if (whole_usage) usage_ = chunk.usage;
  if (response_id_.empty()) response_id_ = chunk.id.substr(0, kMaxIdBytes);
  for (const UpstreamFragment& fragment : chunk.fragments) {
    if (!ended()) TakeFragment(fragment, chunk.usage, wake);
  }
  if (chunk.error.has_value() && !complete()) FailByError(*chunk.error, wake);
  if (complete() && whole_usage) EndDone(wake);
}

void UpstreamOutput::TakeFragment(const UpstreamFragment& fragment, const std::optional<Usage>& usage, WakeSet* wake) {
  using Kind = UpstreamFragment::Kind;
  ++progress_;
  const bool known = fragment.choice < choices_.size();
  if (known && choices_[fragment.choice].cut_short) return;
  if (!known || choices_[fragment.choice].finished) {
    // Ignoring it would drop a part of the output.
    if (fragment.bytes.empty() && fragment.kind != Kind::kToolCall) return;
    return Fail({"engine_failed",
                 known ? "the upstream sent output of a choice after its end"
                       : "the upstream sent output of a choice that was not requested",
                 false},
                UpstreamVerdict::kFaulty, wake);
  }
  switch (fragment.kind) {
    case Kind::kText:
    case Kind::kReasoning:
    case Kind::kRefusal:
    case Kind::kToolCall:
      TakeOutput(fragment, CountTokens(fragment, usage), wake);
      if (options_.replay != nullptr) CheckReplay(!options_.replay->differs(), wake);
      return;
    case Kind::kUnsupported:
      return Fail(
          {"unsupported_output",
           absl::StrCat("the upstream sent output that is not supported: ", ToMessage(fragment.bytes, kMaxNameBytes)),
           false},
          UpstreamVerdict::kHealthy, wake);
    case Kind::kFinish:
      return FinishChoice(fragment.choice, fragment.reason, wake);
    case Kind::kAbort:
      return Fail({"engine_failed", "the upstream aborted the generation", true}, UpstreamVerdict::kFaulty, wake);
  }
}

void UpstreamOutput::TakeOutput(const UpstreamFragment& fragment, uint32_t tokens, WakeSet* wake) {
  using Kind = UpstreamFragment::Kind;
  Choice& choice = choices_[fragment.choice];
  // An empty text is no change of kind.
  const bool empty = fragment.kind != Kind::kToolCall && fragment.bytes.empty() && fragment.logprobs.empty();
  if (fragment.kind != choice.kind && !empty) {
    FlushKind(fragment.choice, wake);
    if (ended() || choice.finished) return;
    choice.kind = fragment.kind;
  }
  choice.tokens += tokens;
  choice.pending_tokens += tokens;
  if (fragment.kind == Kind::kReasoning) counted_reasoning_ += tokens;
  for (const TokenLogprob& each : fragment.logprobs) {
    if (!AddBytes(LogprobBytes(each), wake)) return;
    choice.pending_logprobs.push_back(each);
  }
  if (fragment.kind == Kind::kToolCall) {
    TakeCall(fragment, wake);
  } else if (!empty) {
    AppendOutput(fragment.choice, choice.joiner.Add(fragment.bytes), wake);
  }
  if (ended() || choice.finished) return;
  if (options_.max_tokens > 0 && choice.tokens >= options_.max_tokens) {
    CutShort(fragment.choice, FinishReason::kLength, wake);
  }
}

void UpstreamOutput::TakeCall(const UpstreamFragment& fragment, WakeSet* wake) {
  // Also what is held until the name of the call is known.
  if (!AddBytes(fragment.bytes.size() + fragment.call_id.size() + fragment.call_name.size(), wake)) return;
  UpstreamCalls& calls = choices_[fragment.choice].calls;
  const auto piece = calls.Add(fragment, fragment.choice, response_id_);
  if (FailByCalls(calls.error(), wake) || !piece.has_value()) return;
  AppendPart(fragment.choice, {PartKind::kToolCall, piece->arguments, piece->number, piece->opening}, wake);
}

bool UpstreamOutput::FailByCalls(UpstreamCalls::Error error, WakeSet* wake) {
  if (error == UpstreamCalls::Error::kNone) return false;
  error == UpstreamCalls::Error::kTooMany
      ? Fail({"too_many_parts", "the upstream sent too many tool calls", false}, UpstreamVerdict::kHealthy, wake)
      : Fail({"unsupported_output", "the upstream sent a tool call without a valid name", false},
             UpstreamVerdict::kHealthy, wake);
  return true;
}

void UpstreamOutput::CheckReplay(bool same, WakeSet* wake) {
  if (same) return;
  Fail({"generation_lost", "the upstream's new output differs from the one that was delivered", true},
       UpstreamVerdict::kHealthy, wake);
}

uint32_t UpstreamOutput::CountTokens(const UpstreamFragment& fragment, const std::optional<Usage>& usage) {
  if (fragment.bytes.empty() && fragment.logprobs.empty() && fragment.call_name.empty()) return 0;
  uint32_t tokens = std::max<uint32_t>(1, static_cast<uint32_t>(fragment.logprobs.size()));
  const bool counts = fragment.logprobs.empty() && choices_.size() == 1 && usage.has_value();
  if (counts && usage->completion_tokens > counted_tokens_) {
    tokens = usage->completion_tokens - counted_tokens_;
  }
  counted_tokens_ += tokens;
  return tokens;
}

void UpstreamOutput::AppendOutput(uint32_t index, const std::string& text, WakeSet* wake) {
  const Choice& choice = choices_[index];
  if (choice.kind == UpstreamFragment::Kind::kText) return AppendText(index, text, wake);
  if (text.empty() || !AddBytes(text.size(), wake)) return;
  const bool reasoning = choice.kind == UpstreamFragment::Kind::kReasoning;
  AppendPart(index, reasoning ? PartPiece::Reasoning(text) : PartPiece::Refusal(text), wake);
}

void UpstreamOutput::AppendText(uint32_t index, const std::string& text, WakeSet* wake) {
  Choice& choice = choices_[index];
  if (!choice.stops.has_value()) return AppendCertain(index, text, wake);
  AppendCertain(index, choice.stops->Push(text), wake);
  if (!ended() && choice.stops->stopped()) CutShort(index, FinishReason::kStop, wake);
}

void UpstreamOutput::AppendCertain(uint32_t index, std::string_view text, WakeSet* wake) {
  size_t& shown = choices_[index].shown_bytes;
  const size_t again = std::min(shown, text.size());
  text.remove_prefix(again);
  shown -= again;
  if (text.empty() || !AddBytes(text.size(), wake)) return;
  AppendPart(index, PartPiece::Text(text), wake);
}

void UpstreamOutput::AppendPart(uint32_t index, const PartPiece& piece, WakeSet* wake) {
  Choice& choice = choices_[index];
  Tokens tokens{std::exchange(choice.pending_tokens, 0), std::exchange(choice.pending_logprobs, {})};
  NoteReported();
  piece.kind == PartKind::kText ? sink_->Append(index, piece.content, std::move(tokens), wake)
                                : sink_->AppendPart(index, piece, std::move(tokens), wake);
  if (options_.replay != nullptr) NoteReported();
}

void UpstreamOutput::FlushKind(uint32_t index, WakeSet* wake) {
  Choice& choice = choices_[index];
  if (choice.kind == UpstreamFragment::Kind::kToolCall) return;
  AppendOutput(index, choice.joiner.Flush(), wake);
  if (ended() || choice.finished || choice.kind != UpstreamFragment::Kind::kText || !choice.stops.has_value()) return;
  AppendCertain(index, choice.stops->Finish(), wake);
  choice.shown_bytes = 0;
  // A stop string does not continue in another part.
  choice.stops.emplace(options_.stop);
}

bool UpstreamOutput::AddBytes(size_t bytes, WakeSet* wake) {
  text_bytes_ += bytes;
  if (text_bytes_ <= options_.max_text_bytes) return true;
  Fail({"engine_failed", absl::StrCat("the upstream's output is longer than ", options_.max_text_bytes, " bytes"),
        false},
       UpstreamVerdict::kHealthy, wake);
  return false;
}

void UpstreamOutput::FinishChoice(uint32_t index, FinishReason reason, WakeSet* wake) {
  Choice& choice = choices_[index];
  FlushKind(index, wake);
  if (ended() || choice.finished) return;
  for (const UpstreamCalls::Piece& piece : choice.calls.Finish()) {
    if (!ended() && AddBytes(piece.arguments.size(), wake)) {
      AppendPart(index, PartPiece::Arguments(piece.number, piece.arguments), wake);
    }
  }
  if (ended() || FailByCalls(choice.calls.error(), wake)) return;
  EndChoice(index, reason, wake);
}

void UpstreamOutput::CutShort(uint32_t index, FinishReason reason, WakeSet* wake) {
  Choice& choice = choices_[index];
  if (choice.kind == UpstreamFragment::Kind::kText && choice.stops.has_value()) {
    AppendCertain(index, choice.stops->Finish(), wake);
  }
  if (ended()) return;
  choice.cut_short = cut_short_ = true;
  EndChoice(index, reason, wake);
  if (ended()) return;
  // The usage would come after more text.
  if (complete()) EndDone(wake);
}

void UpstreamOutput::EndChoice(uint32_t index, FinishReason reason, WakeSet* wake) {
  if (options_.replay != nullptr) {
    CheckReplay(options_.replay->complete(index) && !options_.replay->differs(), wake);
    if (ended()) return;
  }
  choices_[index].finished = true;
  if (--open_choices_ > 0) {
    sink_->EndChoice(index, reason, wake);
    return NoteReported();
  }
  reported_ = true;
  last_choice_ = index;
  last_reason_ = reason;
}

void UpstreamOutput::EndDone(WakeSet* wake) {
  if (ended()) return;
  outcome_ = "done";
  ReportUsage(/*by_server=*/!cut_short_);
  sink_->EndChoice(last_choice_, last_reason_, wake);
}

void UpstreamOutput::ReportUsage(bool by_server) {
  Usage usage = usage_.value_or(Usage{});
  if (!by_server || (usage.completion_tokens == 0 && counted_tokens_ > 0)) {
    usage.completion_tokens = counted_tokens_;
    usage.reasoning_tokens = counted_reasoning_;
  }
  if (options_.logged_usage.has_value()) {
    const Usage& logged = *options_.logged_usage;
    // The server counts the text of the log as a part of the prompt.
    const uint32_t prompt = usage.prompt_tokens - std::min(usage.prompt_tokens, logged.completion_tokens);
    const bool known = logged.prompt_tokens > 0;
    usage.prompt_tokens = known ? logged.prompt_tokens : prompt;
    usage.cached_prompt_tokens = known ? logged.cached_prompt_tokens : std::min(usage.cached_prompt_tokens, prompt);
    usage.completion_tokens += logged.completion_tokens;
    usage.reasoning_tokens += logged.reasoning_tokens;
  }
  sink_->SetUsage(usage);
}

void UpstreamOutput::FailByError(const UpstreamError& error, WakeSet* wake) {
  // Without a status it is unknown whether the request or the upstream is at fault.
  const UpstreamVerdict verdict = error.status == 0 ? UpstreamVerdict::kUnknown : VerdictOfStatus(error.status);
  Fail(FailureOfError(error, options_.secret), verdict, wake);
}

void UpstreamOutput::Fail(Failed failed, UpstreamVerdict verdict, WakeSet* wake) {
  if (ended()) return;
  outcome_ = failed.code;
  verdict_ = verdict;
  if (options_.keep_first_failure && !reported_) {
    kept_failure_ = std::move(failed);
    return;
  }
  reported_ = true;
  sink_->Fail(std::move(failed), wake);
}

}  // namespace runnel::inference
