#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "services/inference/engines/logged_output.h"
#include "services/inference/generation/engine.h"

namespace runnel::inference {

// Between an output that a server makes again and the sink of the generation: passes on what follows the log. The ids
// of tool calls may differ, because servers draw them at random: those that are open keep the ids of the log. Not
// thread-safe.
class UpstreamReplay final : public EventSink {
 public:
  // `logged` (of each choice) and `sink` must outlive it. `usage`: of the log.
  UpstreamReplay(const std::vector<LoggedOutput>* logged, const Usage& usage, EventSink* sink);

  // The output is not the logged one. Nothing is passed on from then on, but for Fail and EndAll.
  bool differs() const { return differs_; }
  // The choice has all of its logged output.
  bool complete(uint32_t choice) const { return choices_[choice].complete(); }
  // The sink was called.
  bool passed_on() const { return passed_on_; }

  // EventSink.
  void Begin() override { sink_->Begin(); }
  void SetPromptTokens(uint32_t, uint32_t) override {}
  // Without a count of the server for all of the output, what the log counts and what was passed on.
  void SetUsage(const Usage& usage) override;
  void SetPrefillShare(float share) override { sink_->SetPrefillShare(share); }
  void Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet* wake) override;
  void AppendPart(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) override;
  void EndChoice(uint32_t choice, FinishReason reason, WakeSet* wake) override;
  void EndAll(FinishReason reason, WakeSet* wake) override;
  void Fail(Failed failed, WakeSet* wake) override;
  bool cancelled() const override { return sink_->cancelled(); }

 private:
  void PassOn(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake);

  const std::vector<LoggedOutput>* const logged_;
  const Usage usage_;
  EventSink* const sink_;
  std::vector<ReplaySink> choices_;
  uint32_t open_choices_;       // of the server
  uint32_t unlogged_ends_ = 0;  // choices that have not ended in the log, nor here
  std::optional<std::pair<uint32_t, FinishReason>> held_end_;
  uint32_t new_tokens_ = 0;     // that were passed on
  uint32_t new_reasoning_ = 0;  // of these
  bool differs_ = false;
  bool passed_on_ = false;
};

}  // namespace runnel::inference
