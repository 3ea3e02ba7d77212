#include "tests/bench/load/stream_check.h"

#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace runnel::bench {
int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void StreamCheck::OnEvent(Event* event, int64_t now_us) {
  using Kind = Event::Kind;
  if (event->kind == Kind::kOther || ended_) return;
  ++totals_->messages;
  const uint64_t before = order_.last();
  if (!order_.Advance(event->first, event->seq)) return;
  totals_->events += event->seq - std::max(before, event->first - 1);
  switch (event->kind) {
    case Kind::kDelta:
      return OnDelta(*event, now_us);
    case Kind::kDone:
      ended_ = true;
      return CheckDone(*event);
    case Kind::kFailed:
    case Kind::kGap:
      ended_ = true;
      return totals_->Fault("a generation failed, or has a gap");
    default:
      return;
  }
}

void StreamCheck::OnDelta(const Event& event, int64_t now_us) {
  if (!std::exchange(seen_delta_, true) && totals_->in_window) totals_->first_token.Add(now_us - requested_us_);
  totals_->tokens += event.tokens;
  text_bytes_ += event.text.size();
  crc32_ = static_cast<uint32_t>(crc32_z(crc32_, reinterpret_cast<const Bytef*>(event.text.data()), event.text.size()));
  if (tokens_.has_value()) {
    tokens_->OnText(event.content.empty() ? event.text : event.content, requested_us_, now_us);
  } else if (totals_->in_window) {
    CountStamps(event.text, now_us);
  }
}

// `1234|word 1235|word`: see StampedToken of the scripted engine.
void StreamCheck::CountStamps(const std::string& text, int64_t now_us) {
  for (size_t bar = text.find('|'); bar != std::string::npos; bar = text.find('|', bar + 1)) {
    int64_t stamp = 0;
    int64_t unit = 1;
    for (size_t i = bar; i > 0 && text[i - 1] >= '0' && text[i - 1] <= '9' && unit < int64_t{1} << 60; --i) {
      stamp += (text[i - 1] - '0') * unit;
      unit *= 10;
    }
    if (unit > 1) totals_->delay.Add(now_us - stamp);
  }
}

void StreamCheck::CheckDone(const Event& event) {
  const bool same_text = !event.has_digest || (event.text_bytes == text_bytes_ && event.crc32 == crc32_);
  verified_ = event.events == order_.last() && same_text && (!tokens_.has_value() || tokens_->IsWhole(event.tokens));
  if (verified_) {
    ++totals_->verified;
  } else {
    totals_->Fault("the digest is not that of the text");
  }
}

}  // namespace runnel::bench
