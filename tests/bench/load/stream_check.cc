#include "tests/bench/load/stream_check.h"

#include <zlib.h>

#include <algorithm>
#include <chrono>

namespace runnel::bench {
namespace {

// Gaps that a stream remembers. After more gaps than this, late events count as duplicated.
constexpr size_t kMaxMissing = 64;

}  // namespace

int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void StreamCheck::OnEvent(Event* event, int64_t now_us) {
  using Kind = Event::Kind;
  if (event->kind == Kind::kOther || ended_) return;
  ++totals_->messages;
  if (!CheckOrder(*event)) return;
  switch (event->kind) {
    case Kind::kDelta:
      if (!std::exchange(seen_delta_, true) && totals_->in_window) totals_->first_token.Add(now_us - requested_us_);
      totals_->tokens += event->tokens;
      text_bytes_ += event->text.size();
      crc32_ = static_cast<uint32_t>(
          crc32_z(crc32_, reinterpret_cast<const Bytef*>(event->text.data()), event->text.size()));
      if (totals_->in_window) CountStamps(event->text, now_us);
      return;
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

bool StreamCheck::CheckOrder(const Event& event) {
  if (event.seq > last_) {
    if (event.first <= last_) {
      totals_->duplicated += last_ - event.first + 1;
      totals_->Fault("an event that was seen in part");
    } else if (event.first > last_ + 1) {
      totals_->lost += event.first - last_ - 1;
      totals_->Fault("a gap after event " + std::to_string(last_));
      if (missing_.size() < kMaxMissing) missing_.emplace_back(last_ + 1, event.first - 1);
    }
    totals_->events += event.seq - std::max(last_, event.first - 1);
    last_ = event.seq;
    return true;
  }
  const uint64_t count = event.seq - event.first + 1;
  const auto late = std::find_if(missing_.begin(), missing_.end(), [&event](const auto& range) {
    return event.first >= range.first && event.seq <= range.second;
  });
  if (late == missing_.end()) {
    totals_->duplicated += count;
    totals_->Fault("an event twice");
  } else {
    totals_->lost -= count;
    totals_->reordered += count;
  }
  return false;
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
  verified_ = event.events == last_ && event.text_bytes == text_bytes_ && event.crc32 == crc32_;
  if (verified_) {
    ++totals_->verified;
  } else {
    totals_->Fault("the digest is not that of the text");
  }
}

}  // namespace runnel::bench
