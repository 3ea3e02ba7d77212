#include "services/inference/engines/scripted_engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "services/base/status_macros.h"
#include "services/inference/engines/stoppable_parts.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

// The limit of tokens per step of one generation, so that a fast one does not delay the others.
constexpr uint32_t kMaxTokensPerStep = 256;

// The next time at which all stepped runs with this pace are due.
absl::Duration NextStep(absl::Duration at, double tokens_per_second) {
  const double interval = 1 / tokens_per_second;
  return absl::Seconds(std::ceil(absl::ToDoubleSeconds(at) / interval) * interval);
}

}  // namespace

struct ScriptedEngine::Run {
  std::unique_ptr<PreparedScript> prepared;
  std::shared_ptr<EventSink> sink;  // null once the run has ended
  absl::Duration first_due;         // of token 0; of a continued run as if it had had its pace all the time
  uint32_t next = 0;                // the next token
  bool resumed = false;             // Resume is to be called
  // One for each choice, or none if there are no stop strings: then no text has to be held.
  std::vector<StoppableParts> stoppable;

  // Of a continued run. `sink` is set.
  void Continue(ScriptedPosition& position) {
    resumed = true;
    stoppable = std::move(position.stoppable);
    for (StoppableParts& state : stoppable) state.SendTo(sink.get());
    next = prepared->end();
    for (const ScriptedPosition::Choice& choice : position.choices) {
      if (!choice.ended) next = std::min(next, choice.next);
    }
  }
  // Whether the log of a continued run has the next token of the choice, or its end.
  bool in_log(uint32_t choice) const {
    return prepared->position.has_value() && (next < prepared->position->choices[choice].next || ended_in_log(choice));
  }
  bool ended_in_log(uint32_t choice) const {
    return prepared->position.has_value() && prepared->position->choices[choice].ended;
  }

  void Append(uint32_t choice, const PartPiece& piece, Tokens token, EventSink* to, WakeSet* wake) {
    if (stoppable.empty()) {
      return piece.kind == PartKind::kText ? to->Append(choice, piece.content, std::move(token), wake)
                                           : to->AppendPart(choice, piece, std::move(token), wake);
    }
    StoppableParts& state = stoppable[choice];
    if (state.stopped()) return;
    state.Append(piece, std::move(token), wake);
    if (state.stopped()) to->EndChoice(choice, FinishReason::kStop, wake);
  }
  void AppendRest(WakeSet* wake) {
    for (uint32_t choice = 0; choice < stoppable.size(); ++choice) {
      if (!ended_in_log(choice)) stoppable[choice].Finish(wake);
    }
  }
  bool stopped() const {
    for (uint32_t choice = 0; choice < stoppable.size(); ++choice) {
      if (!stoppable[choice].stopped() && !ended_in_log(choice)) return false;
    }
    return !stoppable.empty();
  }
};

ScriptedEngine::ScriptedEngine(Options options)
    : options_(std::move(options)), created_at_(options_.clock->Now()), thread_([this] { Loop(); }) {}

ScriptedEngine::~ScriptedEngine() { Stop(); }

std::vector<ModelInfo> ScriptedEngine::Models() const {
  return {ModelInfo{options_.model_id, "scripted", 0, created_at_}};
}

absl::StatusOr<std::unique_ptr<PreparedGeneration>> ScriptedEngine::Prepare(const GenerationRequest& request) {
  return PreparedScript::Create(request, options_.script);
}

bool ScriptedEngine::CanContinue(const GenerationRequest& request, const LogSegment& /*log*/) const {
  const auto prepared = PreparedScript::Create(request, options_.script);
  if (!prepared.ok()) return false;
  const Script& script = (*prepared)->script;
  return (*prepared)->stop.empty() || (!script.timestamps && script.salt.empty());
}

absl::StatusOr<std::unique_ptr<PreparedGeneration>> ScriptedEngine::PrepareContinuation(
    const GenerationRequest& request, std::shared_ptr<const LogSegment> log) {
  ASSIGN_OR_RETURN(auto prepared, PreparedScript::Create(request, options_.script));
  ASSIGN_OR_RETURN(prepared->position, FindPosition(*prepared, *log));
  return prepared;
}

void ScriptedEngine::Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) {
  auto run = std::make_unique<Run>();
  run->prepared.reset(static_cast<PreparedScript*>(prepared.release()));
  run->sink = std::move(sink);
  const Script& script = run->prepared->script;
  run->first_due = options_.clock->Monotonic() + script.first_token;
  if (auto& position = run->prepared->position; position.has_value()) {
    run->Continue(*position);
    if (run->next > 0) {
      run->first_due = options_.clock->Monotonic() - absl::Seconds(run->next / script.tokens_per_second);
    }
  } else if (!run->prepared->stop.empty()) {
    for (uint32_t choice = 0; choice < run->prepared->choice_count; ++choice) {
      run->stoppable.emplace_back(choice, run->prepared->stop, run->sink.get());
    }
  }
  if (script.stepped) {
    const absl::Duration due = run->first_due + absl::Seconds(run->next / script.tokens_per_second);
    run->first_due += NextStep(due, script.tokens_per_second) - due;
  }
  base::MutexLock lock(&mu_);
  const bool first = schedule_.empty() || run->first_due < schedule_.begin()->first;
  schedule_.emplace(run->first_due, std::move(run));
  if (first || stopping_) wake_.NotifyOne();
}

void ScriptedEngine::CancelRequested() {
  base::MutexLock lock(&mu_);
  cancel_requested_ = true;
  wake_.NotifyOne();
}

void ScriptedEngine::Stop() {
  {
    base::MutexLock lock(&mu_);
    stopping_ = true;
    wake_.NotifyOne();
  }
  if (thread_.joinable()) thread_.join();
}

absl::Duration ScriptedEngine::StalledFor() const {
  const int64_t began = step_began_us_;
  if (began == kIdle) return absl::ZeroDuration();
  return std::max(absl::ZeroDuration(), options_.clock->Monotonic() - absl::Microseconds(began));
}

void ScriptedEngine::Loop() {
  base::MutexLock lock(&mu_);
  absl::Duration next_step;  // the earliest time of the next step
  while (!stopping_) {
    const absl::Duration now = options_.clock->Monotonic();
    if (now < next_step && !cancel_requested_) {
      wake_.WaitUntil(&mu_, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(next_step - now));
      continue;
    }
    auto due = TakeDueLocked(now);
    if (due.empty()) {
      if (schedule_.empty() || schedule_.begin()->first == absl::InfiniteDuration()) {
        wake_.Wait(&mu_);
      } else {
        const absl::Duration sleep = std::max(schedule_.begin()->first - now, options_.tick);
        wake_.WaitUntil(&mu_, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(sleep));
      }
      continue;
    }
    mu_.Unlock();
    {
      step_began_us_ = absl::ToInt64Microseconds(now);
      WakeSet wake;
      for (auto& entry : due) entry.key() = Step(entry.mapped().get(), now, &wake);
    }
    step_began_us_ = kIdle;
    mu_.Lock();
    for (auto& entry : due) {
      if (entry.mapped()->sink != nullptr) schedule_.insert(std::move(entry));
    }
    // Tokens that became due during this step wait for the next tick, unless the engine is already behind.
    const bool behind = !schedule_.empty() && schedule_.begin()->first <= now;
    next_step = behind ? now : now + options_.tick;
  }
  Schedule left = std::move(schedule_);
  schedule_.clear();
  lock.Release();
  WakeSet wake;
  for (auto& [at, run] : left) run->sink->Fail({"draining", "the service is stopping", true}, &wake);
}

std::vector<ScriptedEngine::Schedule::node_type> ScriptedEngine::TakeDueLocked(absl::Duration now) {
  std::vector<Schedule::node_type> due;
  if (std::exchange(cancel_requested_, false)) {
    for (auto entry = schedule_.begin(); entry != schedule_.end();) {
      if (!entry->second->sink->cancelled()) {
        ++entry;
        continue;
      }
      due.push_back(schedule_.extract(entry++));
    }
  }
  while (!schedule_.empty() && schedule_.begin()->first <= now) {
    due.push_back(schedule_.extract(schedule_.begin()));
  }
  return due;
}

absl::Duration ScriptedEngine::Step(Run* run, absl::Duration now, WakeSet* wake) const {
  const PreparedScript& prepared = *run->prepared;
  const Script& script = prepared.script;
  std::shared_ptr<EventSink> sink = std::move(run->sink);
  if (sink->cancelled()) {
    sink->EndAll(FinishReason::kCancelled, wake);
    return absl::InfiniteDuration();
  }
  if (std::exchange(run->resumed, false)) {
    Resume(run, sink.get(), wake);
    if (run->stopped()) {
      // All ends may be in the log already, without its own.
      sink->EndAll(FinishReason::kStop, wake);
      return absl::InfiniteDuration();
    }
  }
  const auto due_at = [&](uint32_t token) { return run->first_due + absl::Seconds(token / script.tokens_per_second); };
  for (uint32_t step = 0; step < kMaxTokensPerStep; ++step, ++run->next) {
    if (run->next == script.fail_at) {
      sink->Fail({"engine_failed", "the script fails at this token", false}, wake);
      return absl::InfiniteDuration();
    }
    if (run->next == script.stall_at) {
      run->sink = std::move(sink);
      return absl::InfiniteDuration();
    }
    if (run->next >= prepared.end()) {
      run->AppendRest(wake);
      sink->EndAll(prepared.finish_reason(), wake);
      return absl::InfiniteDuration();
    }
    if (due_at(run->next) > now) break;
    AppendTokens(run, sink.get(), wake);
    if (run->stopped()) return absl::InfiniteDuration();
  }
  run->sink = std::move(sink);
  return due_at(run->next);
}

void ScriptedEngine::Resume(Run* run, EventSink* sink, WakeSet* wake) const {
  const std::vector<ScriptedPosition::Choice>& choices = run->prepared->position->choices;
  for (uint32_t choice = 0; choice < choices.size(); ++choice) {
    for (const ReplaySink::Rest& rest : choices[choice].rest) rest.AppendTo(choice, sink, wake);
    const bool stopped = !run->stoppable.empty() && run->stoppable[choice].stopped();
    if (stopped && !choices[choice].ended) sink->EndChoice(choice, FinishReason::kStop, wake);
  }
}

void ScriptedEngine::AppendTokens(Run* run, EventSink* sink, WakeSet* wake) const {
  const PreparedScript& prepared = *run->prepared;
  const absl::Duration now = prepared.script.timestamps ? options_.clock->Monotonic() : absl::ZeroDuration();
  for (uint32_t choice = 0; choice < prepared.choice_count; ++choice) {
    if (run->in_log(choice)) continue;
    const ScriptedPiece token = prepared.PieceAt(choice, run->next, now);
    PartPiece piece{token.kind, token.content, token.call};
    if (token.opening.has_value()) piece.opening = &*token.opening;
    run->Append(choice, piece, prepared.TokenAt(choice, run->next, token.kind), sink, wake);
  }
}

}  // namespace runnel::inference
