#include "services/inference/engines/upstream/upstream_answer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/inference/engines/upstream/upstream_failure.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

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

UpstreamAnswer::UpstreamAnswer(uint32_t choice_count, const Options& options, EventSink* sink)
    : options_(options), sink_(sink), parser_(options.limits), choices_(choice_count), open_choices_(choice_count) {}

void UpstreamAnswer::Add(std::string_view bytes, WakeSet* wake) {
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

void UpstreamAnswer::Finish(Failed cut, WakeSet* wake) {
  if (ended()) return;
  if (complete()) {
    EndDone(wake);
  } else {
    Fail(std::move(cut), UpstreamVerdict::kFaulty, wake);
  }
}

void UpstreamAnswer::Cancel(WakeSet* wake) {
  if (ended()) return;
  if (complete()) {
    EndDone(wake);
    return;
  }
  outcome_ = "cancelled";
  reported_ = true;
  sink_->EndAll(FinishReason::kCancelled, wake);
}

bool UpstreamAnswer::TakeEvent(const UpstreamStreamParser::Event& event, WakeSet* wake) {
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
  if (chunk->usage.has_value()) usage_ = chunk->usage;
  for (const UpstreamPiece& piece : chunk->pieces) {
    if (!ended()) TakePiece(piece, chunk->usage, wake);
  }
  if (chunk->error.has_value() && !complete()) FailByError(*chunk->error, wake);
  if (complete() && usage_.has_value()) EndDone(wake);
  return !ended();
}

void UpstreamAnswer::TakePiece(const UpstreamPiece& piece, const std::optional<Usage>& usage, WakeSet* wake) {
  if (piece.choice >= choices_.size() || choices_[piece.choice].finished) return;
  Choice& choice = choices_[piece.choice];
  if (!piece.bytes.empty() || !piece.logprobs.empty()) {
    ++progress_;
    choice.pending_tokens += CountTokens(piece, usage);
    for (const TokenLogprob& each : piece.logprobs) {
      if (!AddBytes(LogprobBytes(each), wake)) return;
      choice.pending_logprobs.push_back(each);
    }
    AppendText(piece.choice, choice.joiner.Add(piece.bytes), wake);
  }
  if (ended() || !piece.finished) return;
  if (piece.aborted) {
    Fail({"engine_failed", "the upstream aborted the generation", true}, UpstreamVerdict::kFaulty, wake);
    return;
  }
  FinishChoice(piece.choice, piece.reason, wake);
}

uint32_t UpstreamAnswer::CountTokens(const UpstreamPiece& piece, const std::optional<Usage>& usage) {
  uint32_t tokens = std::max<uint32_t>(1, static_cast<uint32_t>(piece.logprobs.size()));
  const bool counts = piece.logprobs.empty() && choices_.size() == 1 && usage.has_value();
  if (counts && usage->completion_tokens > counted_tokens_) {
    tokens = usage->completion_tokens - counted_tokens_;
  }
  counted_tokens_ += tokens;
  return tokens;
}

void UpstreamAnswer::AppendText(uint32_t index, const std::string& text, WakeSet* wake) {
  if (text.empty()) return;
  if (!AddBytes(text.size(), wake)) return;
  Choice& choice = choices_[index];
  reported_ = true;
  sink_->Append(index, text, {std::exchange(choice.pending_tokens, 0), std::exchange(choice.pending_logprobs, {})},
                wake);
}

bool UpstreamAnswer::AddBytes(size_t bytes, WakeSet* wake) {
  text_bytes_ += bytes;
  if (text_bytes_ <= options_.max_text_bytes) return true;
  Fail({"engine_failed", absl::StrCat("the upstream's output is longer than ", options_.max_text_bytes, " bytes"),
        false},
       UpstreamVerdict::kHealthy, wake);
  return false;
}

void UpstreamAnswer::FinishChoice(uint32_t index, FinishReason reason, WakeSet* wake) {
  AppendText(index, choices_[index].joiner.Flush(), wake);
  if (ended()) return;
  choices_[index].finished = true;
  ++progress_;
  reported_ = true;
  if (--open_choices_ > 0) {
    sink_->EndChoice(index, reason, wake);
    return;
  }
  last_choice_ = index;
  last_reason_ = reason;
}

void UpstreamAnswer::EndDone(WakeSet* wake) {
  if (ended()) return;
  outcome_ = "done";
  if (usage_.has_value() && usage_->prompt_tokens > 0) {
    sink_->SetPromptTokens(usage_->prompt_tokens, usage_->cached_prompt_tokens);
  }
  sink_->EndChoice(last_choice_, last_reason_, wake);
}

void UpstreamAnswer::FailByError(const UpstreamError& error, WakeSet* wake) {
  // Without a status it is unknown whether the request or the upstream is at fault.
  const UpstreamVerdict verdict = error.status == 0 ? UpstreamVerdict::kUnknown : VerdictOfStatus(error.status);
  Fail(FailureOfError(error, options_.secret), verdict, wake);
}

void UpstreamAnswer::Fail(Failed failed, UpstreamVerdict verdict, WakeSet* wake) {
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
