#include "services/inference/engines/llama/llama_continuation.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "services/base/status_macros.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

// Makes the output of one choice again from the tokens in the log.
class ChoiceReplay {
 public:
  // All must outlive it.
  ChoiceReplay(const LoggedOutput& logged, const LlamaModel& model, const LlamaJob& job, LlamaChoice* choice)
      : logged_(logged), model_(model), job_(job), choice_(choice), sink_(&logged) {}

  absl::Status Run(uint32_t context) {
    choice_->output.SendTo(&sink_);
    const absl::Status status = TakeTokens();
    // Without an end token: the output ended by a limit, or because its grammar allows nothing more.
    const bool finished = status.ok() && !sink_.complete() && !sink_.differs();
    if (finished) choice_->output.Finish(&wake_);
    choice_->output.SendTo(nullptr);
    RETURN_IF_ERROR(status);
    if (sink_.differs() || !sink_.complete()) {
      return absl::FailedPreconditionError("the tokens in the log do not give its text");
    }
    choice_->rest = sink_.TakeRest();
    choice_->restored = choice_->drawn;
    choice_->ended = choice_->ended_in_log = logged_.ended();
    if (has_end_ || choice_->output.stopped()) {
      choice_->ending = FinishReason::kStop;
    } else if (choice_->drawn >= job_.max_tokens || choice_->tokens.size() >= context) {
      choice_->ending = FinishReason::kLength;
    } else if (finished) {
      choice_->ending = job_.filter != nullptr ? FinishReason::kStop : FinishReason::kLength;
    }
    return absl::OkStatus();
  }
  uint32_t hidden_tokens() const { return sink_.hidden_tokens(); }

 private:
  absl::Status TakeTokens() {
    for (const LoggedOutput::Piece& piece : logged_.pieces) {
      for (size_t i = 0; i < piece.token_ids.size() && !sink_.differs(); ++i) {
        RETURN_IF_ERROR(TakeToken(piece.token_ids[i], i + 1 == piece.token_ids.size()));
      }
    }
    return absl::OkStatus();
  }

  // As LlamaScheduler::DrawToken. `last`: a piece of the log follows.
  absl::Status TakeToken(uint32_t id, bool last) {
    if (id >= model_.vocabulary_size() || has_end_) {
      return absl::FailedPreconditionError("the log has a token that cannot follow");
    }
    const auto token = static_cast<int32_t>(id);
    choice_->tokens.push_back(token);
    const std::string* const control = job_.output.ControlText(token);
    if (model_.IsEnd(token)) {
      has_end_ = true;
      if (control != nullptr) choice_->output.Append(*control, 0, &wake_);
      choice_->output.Finish(&wake_);
      return absl::OkStatus();
    }
    if (!choice_->sampler.AcceptAgain(token)) {
      return absl::FailedPreconditionError("the log has a token that the output's format does not allow");
    }
    ++choice_->drawn;
    if (last) choice_->output.ParseNext();
    choice_->output.Append(control != nullptr ? *control : model_.Piece(token), 1, &wake_);
    return absl::OkStatus();
  }

  const LoggedOutput& logged_;
  const LlamaModel& model_;
  const LlamaJob& job_;
  LlamaChoice* const choice_;
  ReplaySink sink_;
  WakeSet wake_;
  bool has_end_ = false;
};

}  // namespace

bool HasTokenIds(const LogSegment& log) {
  // The first piece of a choice has at least one token.
  std::vector<bool> seen(log.choice_count);
  return std::all_of(log.deltas.begin(), log.deltas.end(), [&](const LoggedDelta& delta) {
    if (delta.choice >= seen.size()) return false;
    const bool first = !seen[delta.choice];
    seen[delta.choice] = true;
    return !first || !delta.token_ids.empty();
  });
}

absl::Status ContinueFromLog(const LogSegment& log, const LlamaModel& model, uint32_t context, LlamaJob* job) {
  ASSIGN_OR_RETURN(const std::vector<LoggedOutput> outputs, OutputsOf(log, job->choice_count));
  if (log.deltas.empty() && log.ended.empty()) return absl::OkStatus();
  LlamaJob::Continuation continuation;
  uint32_t counted = 0;
  for (const LoggedDelta& delta : log.deltas) counted += delta.tokens;
  for (uint32_t i = 0; i < job->choice_count; ++i) {
    continuation.choices.push_back(std::make_unique<LlamaChoice>(i, *job, nullptr));
    ChoiceReplay replay(outputs[i], model, *job, continuation.choices.back().get());
    RETURN_IF_ERROR(replay.Run(context));
    counted += replay.hidden_tokens();
  }
  continuation.usage = log.usage.value_or(Usage{static_cast<uint32_t>(job->prompt.size()), counted});
  if (!log.ended.empty() && continuation.usage.completion_tokens > counted) {
    continuation.uncounted_tokens = continuation.usage.completion_tokens - counted;
  }
  job->continuation = std::make_shared<LlamaJob::Continuation>(std::move(continuation));
  return absl::OkStatus();
}

}  // namespace runnel::inference
