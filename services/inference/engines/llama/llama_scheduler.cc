#include "services/inference/engines/llama/llama_scheduler.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

namespace runnel::inference {
namespace {

// After so many failed batches in a row, the generations in the last one fail.
constexpr uint32_t kMaxFailures = 2;

// A filter that takes longer for a token is slow. At most one choice with a slow filter is in a batch, and only once
// decoding has taken as long as the slow filters before it. So the other choices keep at least half of their pace. A
// vocabulary of 50,000 tokens takes 2 to 10 ms if many tokens are allowed.
constexpr std::chrono::duration<double> kSlowFilter{0.02};

constexpr char kTooComplex[] =
    "holding the output to its format takes too long: simplify the repetitions and alternatives of the format or tools";

int64_t NowNs() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

}  // namespace

LlamaScheduler::LlamaScheduler(LlamaDecoder* decoder, base::Metrics* metrics, const Options& options)
    : decoder_(decoder), options_(options), metrics_(metrics), slots_(decoder, options.preambles), thread_([this] {
        Loop();
      }) {}

LlamaScheduler::~LlamaScheduler() { Stop(); }

void LlamaScheduler::Start(LlamaJob job, std::shared_ptr<EventSink> sink) {
  auto generation = std::make_unique<Generation>(std::move(job), std::move(sink));
  base::MutexLock lock(&mu_);
  if (!stopping_) {
    started_.push_back(std::move(generation));
    wake_.NotifyOne();
    return;
  }
  lock.Release();
  WakeSet wake;
  generation->sink->Fail({"draining", "the service is stopping", true}, &wake);
}

void LlamaScheduler::Stop() {
  {
    base::MutexLock lock(&mu_);
    stopping_ = true;
    wake_.NotifyOne();
  }
  if (thread_.joinable()) thread_.join();
}

void LlamaScheduler::Loop() {
  while (TakeStarted()) {
    WakeSet wake;
    Step(&wake);
  }
  progress_ns_.store(kIdle, std::memory_order_relaxed);
  WakeSet wake;
  for (const auto& generation : generations_) {
    generation->sink->Fail({"draining", "the service is stopping", true}, &wake);
  }
  generations_.clear();
}

bool LlamaScheduler::TakeStarted() {
  base::MutexLock lock(&mu_);
  if (generations_.empty() && started_.empty()) {
    progress_ns_.store(kIdle, std::memory_order_relaxed);
    while (started_.empty() && !stopping_) wake_.Wait(&mu_);
    RecordProgress();
  }
  std::move(started_.begin(), started_.end(), std::back_inserter(generations_));
  started_.clear();
  return !stopping_;
}

void LlamaScheduler::RecordProgress() { progress_ns_.store(NowNs(), std::memory_order_relaxed); }

absl::Duration LlamaScheduler::StalledFor() const {
  const int64_t progress = progress_ns_.load(std::memory_order_relaxed);
  if (progress == kIdle) return absl::ZeroDuration();
  return absl::Nanoseconds(std::max<int64_t>(0, NowNs() - progress));
}

void LlamaScheduler::Step(WakeSet* wake) {
  ContinueLogs(wake);
  EndCancelled(wake);
  Admit();
  FillBatch();
  if (DecodeBatch(wake)) Advance(wake);
  RemoveEnded();
  metrics_.kv_cache_usage.Set(std::min(1.0, static_cast<double>(slots_.held()) / decoder_->cells()));
}

void LlamaScheduler::EndCancelled(WakeSet* wake) {
  for (const auto& generation : generations_) {
    if (!generation->sink->cancelled()) continue;
    for (const auto& choice : generation->choices) {
      if (choice->ended) continue;
      if (choice->slot.has_value()) slots_.Release(*choice->slot);
      choice->slot.reset();
      choice->ended = true;
    }
    generation->sink->EndAll(FinishReason::kCancelled, wake);
  }
  RemoveEnded();
}

void LlamaScheduler::ContinueLogs(WakeSet* wake) {
  for (const auto& generation : generations_) {
    if (!std::exchange(generation->to_continue, false)) continue;
    // All ends may be in the log already, without its own.
    if (generation->ended()) generation->sink->EndAll(FinishReason::kStop, wake);
    for (const auto& choice : generation->choices) {
      if (choice->ended) continue;
      for (const ReplaySink::Rest& rest : choice->rest) rest.AppendTo(choice->index, generation->sink.get(), wake);
      if (choice->ending.has_value()) EndChoice(choice.get(), *choice->ending, wake);
    }
  }
  RemoveEnded();
}

void LlamaScheduler::RemoveEnded() {
  std::erase_if(generations_, [](const auto& generation) { return generation->ended(); });
}

template <typename Visit>
void LlamaScheduler::ForEachRunning(Visit visit) {
  for (const auto& generation : generations_) {
    for (const auto& choice : generation->choices) {
      if (choice->slot.has_value()) visit(choice.get());
    }
  }
}

uint32_t LlamaScheduler::CellsFor(const Choice& choice) const {
  const LlamaJob& job = choice.generation->job;
  const uint64_t output = std::max(choice.drawn + 1, std::min(job.max_tokens, options_.reserve_tokens));
  return static_cast<uint32_t>(std::min<uint64_t>(job.prompt.size() + output, options_.context));
}

void LlamaScheduler::Admit() {
  // In order of age and without overtaking, so that no choice waits forever.
  bool full = false;
  uint32_t waiting = 0;
  uint64_t promised = 0;
  ForEachRunning([&](const Choice* choice) { promised += CellsFor(*choice); });
  for (const auto& generation : generations_) {
    const Choice& first = *generation->choices.front();
    for (const auto& choice : generation->choices) {
      if (choice->slot.has_value() || choice->ended) continue;
      ++waiting;
      // The other choices copy the prompt from the first one's slot once it is there.
      const bool prompt_ready = choice.get() == &first || first.ended || first.drawn > first.restored;
      full = full || (promised > 0 && promised + CellsFor(*choice) > decoder_->cells());
      if (full || !prompt_ready) continue;
      choice->slot = slots_.Acquire(choice->tokens, generation->job.principal);
      full = !choice->slot.has_value();
      if (full) continue;
      --waiting;
      promised += CellsFor(*choice);
      const uint32_t reused = slots_.Length(*choice->slot);
      metrics_.reused_tokens.Increment(reused);
      // Only for the first choice: the others reuse its prompt, which the client pays for once.
      if (choice.get() == &first && first.drawn == 0 && generation->job.continuation == nullptr) {
        generation->cached_prompt_tokens = reused;
        generation->sink->SetPromptTokens(static_cast<uint32_t>(generation->job.prompt.size()), reused);
      }
      generation->sink->Begin();
    }
  }
  metrics_.waiting_choices.Set(waiting);
}

size_t LlamaScheduler::MissingTokens(const Choice& choice) const {
  return choice.tokens.size() - slots_.Length(*choice.slot);
}

void LlamaScheduler::FillBatch() {
  rows_.clear();
  owners_.clear();
  ChooseSlow();
  size_t drawing = 0;  // choices that draw a token after this batch
  ForEachRunning([&](const Choice* choice) { drawing += !LeftOut(*choice) && MissingTokens(*choice) == 1 ? 1 : 0; });
  size_t room = decoder_->max_rows() - drawing;
  if (drawing > 0) room = std::min<size_t>(room, options_.prefill_rows);

  std::vector<std::pair<Choice*, size_t>> shares;
  ForEachRunning([&](Choice* choice) {
    if (LeftOut(*choice)) return;
    const size_t missing = MissingTokens(*choice);
    const size_t share = missing == 1 ? 1 : std::min(missing, room);
    if (missing != 1) room -= share;
    shares.emplace_back(choice, share);
  });
  // See LlamaSlots: consecutive sequences are computed together if they are also consecutive in the batch.
  std::sort(shares.begin(), shares.end(), [](const auto& a, const auto& b) { return a.first->slot < b.first->slot; });
  for (const auto& [choice, share] : shares) AddRows(choice, share);
}

void LlamaScheduler::ChooseSlow() {
  slow_turn_ = nullptr;
  bool others = false;
  ForEachRunning([&](Choice* choice) {
    others = others || !choice->slow_filter;
    if (!choice->slow_filter) return;
    if (slow_turn_ == nullptr || choice->last_drawn < slow_turn_->last_drawn) slow_turn_ = choice;
  });
  // If all choices have slow filters, none is held back.
  hold_back_slow_ = others;
  if (others && filter_debt_.count() > 0) slow_turn_ = nullptr;
}

bool LlamaScheduler::LeftOut(const Choice& choice) const {
  return hold_back_slow_ && choice.slow_filter && &choice != slow_turn_;
}

void LlamaScheduler::RecordFilterTime(Choice* choice, std::chrono::duration<double> took) {
  choice->slow_filter = took > kSlowFilter;
  choice->last_drawn = batches_;
  if (choice->slow_filter) filter_debt_ += took;
}

void LlamaScheduler::AddRows(Choice* choice, size_t count) {
  uint32_t position = slots_.Length(*choice->slot);
  for (; count > 0; --count, ++position) {
    rows_.push_back({choice->tokens[position], position, *choice->slot, position + 1 == choice->tokens.size()});
    owners_.push_back(choice);
  }
}

bool LlamaScheduler::DecodeBatch(WakeSet* wake) {
  while (!rows_.empty()) {
    const auto begin = std::chrono::steady_clock::now();
    const LlamaDecodeResult result = decoder_->Decode(rows_);
    if (result == LlamaDecodeResult::kOk) {
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      metrics_.decode_duration.Observe(took.count());
      metrics_.batch_rows.Observe(static_cast<double>(rows_.size()));
      failures_ = 0;
      ++batches_;
      filter_debt_ = std::max(std::chrono::duration<double>(0), filter_debt_ - took);
      RecordProgress();
      return true;
    }
    if (result == LlamaDecodeResult::kFailed) {
      RecoverFromFailure(wake);
      return false;
    }
    MakeRoom(wake);
    FillBatch();
  }
  return false;
}

void LlamaScheduler::MakeRoom(WakeSet* wake) {
  if (slots_.EvictIdle()) return;
  Choice* youngest = nullptr;
  uint32_t running = 0;
  ForEachRunning([&](Choice* choice) {
    youngest = choice;
    ++running;
  });
  if (running == 1) {
    // No other choice can be evicted. The options rule this out; a short output is better than an endless loop.
    EndChoice(youngest, FinishReason::kLength, wake);
    return;
  }
  metrics_.preemptions.Increment();
  slots_.Discard(*std::exchange(youngest->slot, std::nullopt));
}

// The contents of the decoder are unknown now, so all choices are decoded again from their tokens. If batches keep
// failing, the generations of the last one fail, so that one bad generation does not block all others forever.
void LlamaScheduler::RecoverFromFailure(WakeSet* wake) {
  metrics_.decode_failures.Increment();
  decoder_->Clear();
  slots_.Reset();
  ForEachRunning([](Choice* choice) { choice->slot.reset(); });
  if (++failures_ < kMaxFailures) return;
  failures_ = 0;
  for (const Choice* owner : owners_) {
    Generation* generation = owner->generation;
    if (generation->ended()) continue;
    Fail(generation, {"engine_failed", "the model failed to decode this batch", true}, wake);
  }
}

void LlamaScheduler::Advance(WakeSet* wake) {
  for (size_t row = 0; row < rows_.size(); ++row) {
    Choice* owner = owners_[row];
    slots_.Extend(*owner->slot, rows_[row].token);
    if (owner->drawn > 0) continue;
    owner->generation->sink->SetPrefillShare(static_cast<float>(slots_.Length(*owner->slot)) /
                                             static_cast<float>(owner->tokens.size()));
  }
  for (size_t row = 0; row < rows_.size(); ++row) {
    // It may have ended meanwhile: another choice may have failed its generation.
    if (rows_[row].logits && !owners_[row]->ended) DrawToken(owners_[row], decoder_->Logits(row), wake);
  }
}

void LlamaScheduler::DrawToken(Choice* choice, std::span<const float> logits, WakeSet* wake) {
  const auto begin = std::chrono::steady_clock::now();
  const int32_t token = choice->sampler.Sample(logits, choice->drawn, &scratch_);
  const bool ends = token == Sampler::kNone || decoder_->IsEnd(token);
  const std::string* const control = choice->generation->job.output.ControlText(token);
  if (!ends) choice->sampler.Accept(token);
  if (choice->generation->job.filter != nullptr) {
    RecordFilterTime(choice, std::chrono::steady_clock::now() - begin);
    if (choice->sampler.exhausted()) {
      metrics_.formats_too_complex.Increment();
      Fail(choice->generation, {"output_format_too_complex", kTooComplex, false}, wake);
      return;
    }
  }
  // kNone: the filter allows no more tokens, because the output is complete and the model has no end token.
  if (ends) {
    if (token != Sampler::kNone) choice->tokens.push_back(token);
    if (control != nullptr) choice->output.Append(*control, 0, wake);
    EndChoice(choice, FinishReason::kStop, wake);
    return;
  }
  choice->tokens.push_back(token);
  ++choice->drawn;
  Tokens drawn = 1;
  if (const auto& top = choice->generation->job.top_logprobs; top.has_value()) {
    drawn.logprobs.push_back(DescribeToken(token, logits, *top));
  }
  choice->output.Append(control != nullptr ? *control : decoder_->Piece(token), std::move(drawn), wake);
  if (choice->output.stopped()) {
    EndChoice(choice, FinishReason::kStop, wake);
  } else if (choice->drawn >= choice->generation->job.max_tokens || choice->tokens.size() >= options_.context) {
    EndChoice(choice, FinishReason::kLength, wake);
  }
}

TokenLogprob LlamaScheduler::DescribeToken(int32_t token, std::span<const float> logits, uint32_t top) {
  const auto scored = ScoreTokens(logits, token, top, &scratch_);
  TokenLogprob described{decoder_->Piece(token), scored[0].logprob, {}};
  for (size_t i = 1; i < scored.size(); ++i) {
    described.top.push_back({decoder_->Piece(scored[i].token), scored[i].logprob, {}});
  }
  return described;
}

void LlamaScheduler::EndChoice(Choice* choice, FinishReason reason, WakeSet* wake) {
  const Generation& generation = *choice->generation;
  choice->output.Finish(wake);
  if (choice->slot.has_value()) slots_.Release(*std::exchange(choice->slot, std::nullopt));
  choice->ended = true;
  // With ids also before the last choice ends: the log has no other count of tokens that are in no delta.
  const bool counts = generation.job.output.syntax != nullptr && (generation.ended() || generation.reports_ids);
  if (counts) generation.sink->SetUsage(generation.CountedUsage());
  generation.sink->EndChoice(choice->index, choice->output.ReasonFor(reason), wake);
}

void LlamaScheduler::Fail(Generation* generation, Failed failed, WakeSet* wake) {
  for (const auto& choice : generation->choices) {
    if (choice->slot.has_value()) slots_.Release(*std::exchange(choice->slot, std::nullopt));
    choice->ended = true;
  }
  generation->sink->Fail(std::move(failed), wake);
}

}  // namespace runnel::inference
