#include "services/inference/engines/scripted_engine.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/inference/engines/extra_fields.h"
#include "services/inference/engines/scripted_parts.h"
#include "services/inference/engines/stoppable_parts.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

constexpr std::array<std::string_view, 64> kWords = {
    "water",  "runs",    "down",  "the",    "hill",  "and",    "carries", "small",  "stones", "to",    "sea",
    "where",  "light",   "falls", "on",     "waves", "of",     "green",   "glass",  "while",  "birds", "turn",
    "slow",   "circles", "over",  "sand",   "a",     "boat",   "waits",   "for",    "wind",   "from",  "north",
    "it",     "will",    "come",  "before", "dark",  "says",   "old",     "man",    "who",    "mends", "nets",
    "café",   "naïve",   "Übung", "東京",   "水",    "🌊",      "привет",  "señor",  "fjörd",  "Ωmega", "we",
    "listen", "then",    "sail",  "home",   "with",  "silver", "fish,",   "bread,", "salt."};

// To be changed with the words and how they are chosen.
constexpr char kFingerprint[] = "scripted-1";

// The limit of tokens per step of one generation, so that a fast one does not delay the others.
constexpr uint32_t kMaxTokensPerStep = 256;

// splitmix64, http://prng.di.unimi.it/splitmix64.c (public domain).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::string_view Word(uint64_t seed, uint32_t choice, uint32_t index) {
  return kWords[Mix(seed ^ Mix((uint64_t{choice} << 32) | index)) % kWords.size()];
}

// The next time at which all stepped runs with this pace are due.
absl::Duration NextStep(absl::Duration at, double tokens_per_second) {
  const double interval = 1 / tokens_per_second;
  return absl::Seconds(std::ceil(absl::ToDoubleSeconds(at) / interval) * interval);
}

absl::StatusOr<double> ReadNumber(const GenerationRequest& request, const std::string& key, double otherwise,
                                  double least, double most) {
  const auto found = request.metadata.find(key);
  if (found == request.metadata.end()) return otherwise;
  double value = 0;
  if (!absl::SimpleAtod(found->second, &value) || !(value >= least && value <= most)) {
    return base::InvalidField(absl::StrCat("metadata.", key),
                              absl::StrCat("must be a number from ", least, " to ", most));
  }
  return value;
}

absl::StatusOr<Script> ReadScript(const GenerationRequest& request, Script script) {
  ASSIGN_OR_RETURN(script.tokens_per_second,
                   ReadNumber(request, "scripted.tokens_per_second", script.tokens_per_second, 0.001, 1e6));
  ASSIGN_OR_RETURN(const double first_ms, ReadNumber(request, "scripted.first_token_ms",
                                                     absl::ToDoubleMilliseconds(script.first_token), 0, 600'000));
  ASSIGN_OR_RETURN(const double tokens, ReadNumber(request, "scripted.tokens", script.tokens, 0, 1e6));
  ASSIGN_OR_RETURN(const double fail_at,
                   ReadNumber(request, "scripted.fail_at", static_cast<double>(script.fail_at), -1, 1e6));
  ASSIGN_OR_RETURN(const double stall_at,
                   ReadNumber(request, "scripted.stall_at", static_cast<double>(script.stall_at), -1, 1e6));
  ASSIGN_OR_RETURN(const double timestamps,
                   ReadNumber(request, "scripted.timestamps", script.timestamps ? 1 : 0, 0, 1));
  ASSIGN_OR_RETURN(const double stepped, ReadNumber(request, "scripted.stepped", script.stepped ? 1 : 0, 0, 1));
  script.first_token = absl::Milliseconds(first_ms);
  script.tokens = static_cast<uint32_t>(tokens);
  script.fail_at = static_cast<int64_t>(fail_at);
  script.stall_at = static_cast<int64_t>(stall_at);
  script.timestamps = timestamps > 0;
  script.stepped = stepped > 0;
  return script;
}

class PreparedScript final : public PreparedGeneration {
 public:
  uint32_t prompt_tokens() const override { return prompt_tokens_; }
  std::string fingerprint() const override { return kFingerprint; }

  FinishReason finish_reason() const {
    if (script.tokens > max_tokens) return FinishReason::kLength;
    return parts.has_value() && parts->has_calls() ? FinishReason::kToolCalls : FinishReason::kStop;
  }

  Script script;
  std::optional<ScriptedParts> parts;  // absent: only text
  uint64_t seed = 0;
  uint32_t max_tokens = 0;
  uint32_t choice_count = 1;
  std::vector<std::string> stop;
  std::optional<uint32_t> top_logprobs;
  uint32_t prompt_tokens_ = 0;
};

uint32_t CountWords(const GenerationRequest& request) {
  uint32_t words = 0;
  const auto count = [&words](std::string_view text) {
    bool inside = false;
    for (const char c : text) {
      const bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
      words += !blank && !inside ? 1 : 0;
      inside = !blank;
    }
  };
  count(request.prompt);
  for (const ChatMessage& message : request.messages) {
    count(message.content);
    count(message.reasoning);
  }
  return words;
}

}  // namespace

std::string ScriptedToken(uint64_t seed, uint32_t choice, uint32_t index) {
  const std::string_view word = Word(seed, choice, index);
  return index == 0 ? std::string(word) : absl::StrCat(" ", base::ToAbsl(word));
}

TokenLogprob ScriptedLogprob(uint64_t seed, uint32_t choice, uint32_t index, uint32_t top) {
  const uint64_t bits = Mix(~seed ^ Mix((uint64_t{choice} << 32) | index));
  double left = 0.01 + 0.49 * static_cast<double>(bits >> 11) * 0x1.0p-53;  // of the probability
  TokenLogprob logprob{ScriptedToken(seed, choice, index), static_cast<float>(std::log1p(-left)), {}};
  if (top > 0) logprob.top.push_back({logprob.token, logprob.logprob, {}});
  for (uint64_t i = bits; logprob.top.size() < top; ++i) {
    std::string word = absl::StrCat(index == 0 ? "" : " ", base::ToAbsl(kWords[i % kWords.size()]));
    if (word != logprob.token) logprob.top.push_back({std::move(word), static_cast<float>(std::log(left /= 2)), {}});
  }
  return logprob;
}

std::string StampedToken(uint64_t seed, uint32_t choice, uint32_t index, absl::Duration monotonic) {
  return absl::StrCat(index == 0 ? "" : " ", absl::ToInt64Microseconds(monotonic), "|",
                      base::ToAbsl(Word(seed, choice, index)));
}

struct ScriptedEngine::Run {
  std::unique_ptr<PreparedScript> prepared;
  std::shared_ptr<EventSink> sink;  // null once the run has ended
  absl::Duration first_due;
  uint32_t next = 0;  // the next token
  // One for each choice, or none if there are no stop strings: then no text has to be held.
  std::vector<StoppableParts> stoppable;

  void Append(uint32_t choice, const PartPiece& piece, Tokens token, EventSink* to, WakeSet* wake) {
    if (stoppable.empty()) return to->AppendPart(choice, piece, std::move(token), wake);
    StoppableParts& state = stoppable[choice];
    if (state.stopped()) return;
    state.Append(piece, std::move(token), wake);
    if (state.stopped()) to->EndChoice(choice, FinishReason::kStop, wake);
  }
  void AppendRest(WakeSet* wake) {
    for (StoppableParts& state : stoppable) state.Finish(wake);
  }
  bool stopped() const {
    return !stoppable.empty() &&
           std::all_of(stoppable.begin(), stoppable.end(), [](const auto& each) { return each.stopped(); });
  }
};

ScriptedEngine::ScriptedEngine(Options options)
    : options_(std::move(options)), created_at_(options_.clock->Now()), thread_([this] { Loop(); }) {}

ScriptedEngine::~ScriptedEngine() { Stop(); }

std::vector<ModelInfo> ScriptedEngine::Models() const {
  return {ModelInfo{options_.model_id, "scripted", 0, created_at_}};
}

absl::StatusOr<std::unique_ptr<PreparedGeneration>> ScriptedEngine::Prepare(const GenerationRequest& request) {
  RETURN_IF_ERROR(RejectExtraFields(request));
  RETURN_IF_ERROR(RejectImages(request));
  if (request.output_format.kind != OutputFormat::Kind::kText) {
    return base::InvalidField("output_format", "is not supported by the scripted engine: leave it out");
  }
  if (!request.sampling.logit_bias.empty()) {
    return base::InvalidField("logit_bias", "is not supported by the scripted engine: leave it out");
  }
  auto prepared = std::make_unique<PreparedScript>();
  ASSIGN_OR_RETURN(prepared->script, ReadScript(request, options_.script));
  if (const auto parts = request.metadata.find("scripted.parts"); parts != request.metadata.end()) {
    ASSIGN_OR_RETURN(prepared->parts, ScriptedParts::Parse(parts->second));
    prepared->script.tokens = prepared->parts->tokens();
  }
  prepared->seed = request.seed;
  prepared->max_tokens = request.max_tokens.value_or(prepared->script.tokens);
  prepared->choice_count = request.choice_count;
  prepared->stop = request.stop;
  prepared->top_logprobs = request.top_logprobs;
  prepared->prompt_tokens_ = CountWords(request);
  return prepared;
}

void ScriptedEngine::Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) {
  auto run = std::make_unique<Run>();
  run->prepared.reset(static_cast<PreparedScript*>(prepared.release()));
  run->sink = std::move(sink);
  if (!run->prepared->stop.empty()) {
    for (uint32_t choice = 0; choice < run->prepared->choice_count; ++choice) {
      run->stoppable.emplace_back(choice, run->prepared->stop, run->sink.get());
    }
  }
  const Script& script = run->prepared->script;
  run->first_due = options_.clock->Monotonic() + script.first_token;
  if (script.stepped) run->first_due = NextStep(run->first_due, script.tokens_per_second);
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
  const uint32_t end = std::min(script.tokens, prepared.max_tokens);
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
    if (run->next >= end) {
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

void ScriptedEngine::AppendTokens(Run* run, EventSink* sink, WakeSet* wake) const {
  const PreparedScript& prepared = *run->prepared;
  for (uint32_t choice = 0; choice < prepared.choice_count; ++choice) {
    std::optional<ScriptedPiece> piece;
    if (prepared.parts.has_value()) piece = prepared.parts->At(prepared.seed, choice, run->next);
    if (piece.has_value() && piece->kind != PartKind::kText) {
      PartPiece part{piece->kind, piece->content, piece->call};
      if (piece->opening.has_value()) part.opening = &*piece->opening;
      run->Append(choice, part, 1, sink, wake);
      continue;
    }
    Tokens token = 1;
    if (prepared.top_logprobs.has_value()) {
      token.logprobs = {ScriptedLogprob(prepared.seed, choice, run->next, *prepared.top_logprobs)};
    }
    const std::string text = piece.has_value() ? std::move(piece->content)
                             : prepared.script.timestamps
                                 ? StampedToken(prepared.seed, choice, run->next, options_.clock->Monotonic())
                                 : ScriptedToken(prepared.seed, choice, run->next);
    if (run->stoppable.empty()) {
      sink->Append(choice, text, std::move(token), wake);
    } else {
      run->Append(choice, PartPiece::Text(text), std::move(token), sink, wake);
    }
  }
}

}  // namespace runnel::inference
