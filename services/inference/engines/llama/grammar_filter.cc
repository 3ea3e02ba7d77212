#include "services/inference/engines/llama/grammar_filter.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace runnel::inference {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

void Forbid(std::span<float> logits, std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) logits[static_cast<size_t>(token)] = kForbidden;
}

}  // namespace

GrammarFilter::GrammarFilter(std::shared_ptr<const Grammar> grammar,
                             std::shared_ptr<const GrammarVocabulary> vocabulary, std::chrono::nanoseconds step_timeout)
    : vocabulary_(std::move(vocabulary)), matcher_(std::move(grammar)), step_timeout_(step_timeout) {
  BeginWork();
  current_.state = matcher_.Begin();
  EndWork();
}

void GrammarFilter::BeginWork() {
  began_ = std::chrono::steady_clock::now();
  matcher_.SetDeadline(began_ + std::max(step_timeout_ - spent_, std::chrono::nanoseconds(0)));
}

void GrammarFilter::EndWork() {
  spent_ += std::chrono::steady_clock::now() - began_;
  exhausted_ = exhausted_ || current_.state == GrammarMatcher::kExhausted || spent_ > step_timeout_;
}

bool GrammarFilter::Allows(int32_t token) {
  if (exhausted_) return false;
  if (vocabulary_->IsEnd(token)) return MayEnd();
  const std::string_view text = vocabulary_->TextOf(token);
  return !text.empty() && AllowsText(text);
}

bool GrammarFilter::AllowsText(std::string_view text) {
  if (exhausted_) return false;
  BeginWork();
  const Place place = AfterAll(current_, text);
  exhausted_ = place.state == GrammarMatcher::kExhausted;
  EndWork();
  return !exhausted_ && !place.dead();
}

void GrammarFilter::Apply(std::span<float> logits) {
  if (exhausted_) return;
  BeginWork();
  Forbid(logits, vocabulary_->others());
  if (!MayEnd()) Forbid(logits, vocabulary_->ends());
  path_.assign(1, current_);
  // The length of the shortest beginning of the last token that no text of the grammar can have.
  size_t dead = SIZE_MAX;
  for (const GrammarVocabulary::Token& token : vocabulary_->tokens()) {
    if (token.shared < dead) {
      const std::string_view text = vocabulary_->Text(token);
      dead = SIZE_MAX;
      path_.resize(token.shared + 1);
      for (size_t i = token.shared; i < text.size() && dead == SIZE_MAX; ++i) {
        path_.push_back(After(path_.back(), static_cast<uint8_t>(text[i])));
        if (path_.back().dead()) dead = i + 1;
      }
      if (path_.back().state == GrammarMatcher::kExhausted) {
        exhausted_ = true;
        break;
      }
    }
    if (dead != SIZE_MAX) logits[static_cast<size_t>(token.token)] = kForbidden;
  }
  EndWork();
}

void GrammarFilter::Accept(int32_t token) { AcceptText(vocabulary_->TextOf(token)); }

bool GrammarFilter::AcceptText(std::string_view text) {
  if (exhausted_) return false;
  BeginWork();
  current_ = AfterAll(current_, text);
  if (!current_.dead()) current_.state = matcher_.Trim(current_.state);
  EndWork();
  spent_ = {};
  return !exhausted_ && !current_.dead();
}

GrammarFilter::Place GrammarFilter::AfterAll(Place place, std::string_view bytes) {
  for (const char byte : bytes) {
    if (place.dead() || place.state == GrammarMatcher::kExhausted) break;
    place = After(place, static_cast<uint8_t>(byte));
  }
  return place;
}

GrammarFilter::Place GrammarFilter::After(Place place, uint8_t byte) {
  Torn& torn = place.torn;
  if (torn.missing == 0) {
    if (byte < 0x80) {
      place.state = matcher_.Advance(place.state, byte);
      return place;
    }
    if (byte < 0xC2 || byte > 0xF4) return {};
    const int length = byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    torn = {byte & (0x7Fu >> length), static_cast<uint8_t>(length - 1), SecondByteRange(byte)};
  } else {
    if (byte < torn.next.least || byte > torn.next.most) return {};
    torn = {(torn.value << 6) | (byte & 0x3Fu), static_cast<uint8_t>(torn.missing - 1), {}};
    if (torn.missing == 0) {
      place.state = matcher_.Advance(place.state, torn.value);
      return place;
    }
  }
  // The range of the characters that these bytes may begin.
  const int open = 6 * (torn.missing - 1);
  const uint32_t first = ((torn.value << 6) | (torn.next.least & 0x3Fu)) << open;
  const uint32_t last = (((torn.value << 6) | (torn.next.most & 0x3Fu)) << open) | ((1u << open) - 1);
  if (!matcher_.MayFollow(place.state, first, last)) {
    place.state = matcher_.exhausted() ? GrammarMatcher::kExhausted : GrammarMatcher::kDead;
  }
  return place;
}

}  // namespace runnel::inference
