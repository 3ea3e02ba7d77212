#include "services/inference/engines/scripted_words.h"

#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

constexpr std::array<std::string_view, 64> kWords = {
    "water",  "runs",    "down",  "the",    "hill",  "and",    "carries", "small",  "stones", "to",    "sea",
    "where",  "light",   "falls", "on",     "waves", "of",     "green",   "glass",  "while",  "birds", "turn",
    "slow",   "circles", "over",  "sand",   "a",     "boat",   "waits",   "for",    "wind",   "from",  "north",
    "it",     "will",    "come",  "before", "dark",  "says",   "old",     "man",    "who",    "mends", "nets",
    "café",   "naïve",   "Übung", "東京",   "水",    "🌊",      "привет",  "señor",  "fjörd",  "Ωmega", "we",
    "listen", "then",    "sail",  "home",   "with",  "silver", "fish,",   "bread,", "salt."};

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

// What is before a word: nothing without a salt.
std::string Prefix(uint32_t index, std::string_view salt) {
  return salt.empty() ? std::string() : absl::StrCat(base::ToAbsl(salt), ":", index, "|");
}

}  // namespace

std::string ScriptedToken(uint64_t seed, uint32_t choice, uint32_t index, std::string_view salt) {
  return absl::StrCat(index == 0 ? "" : " ", Prefix(index, salt), base::ToAbsl(Word(seed, choice, index)));
}

TokenLogprob ScriptedLogprob(uint64_t seed, uint32_t choice, uint32_t index, uint32_t top, std::string_view salt) {
  const uint64_t bits = Mix(~seed ^ Mix((uint64_t{choice} << 32) | index));
  double left = 0.01 + 0.49 * static_cast<double>(bits >> 11) * 0x1.0p-53;  // of the probability
  TokenLogprob logprob{ScriptedToken(seed, choice, index, salt), static_cast<float>(std::log1p(-left)), {}};
  if (top > 0) logprob.top.push_back({logprob.token, logprob.logprob, {}});
  for (uint64_t i = bits; logprob.top.size() < top; ++i) {
    std::string word =
        absl::StrCat(index == 0 ? "" : " ", Prefix(index, salt), base::ToAbsl(kWords[i % kWords.size()]));
    if (word != logprob.token) logprob.top.push_back({std::move(word), static_cast<float>(std::log(left /= 2)), {}});
  }
  return logprob;
}

std::string StampedToken(uint64_t seed, uint32_t choice, uint32_t index, absl::Duration monotonic,
                         std::string_view salt) {
  return absl::StrCat(index == 0 ? "" : " ", absl::ToInt64Microseconds(monotonic), "|", Prefix(index, salt),
                      base::ToAbsl(Word(seed, choice, index)));
}

std::string PlainToken(std::string_view token) {
  // No word has a bar, and what may precede the time or the salt ends with a blank or a quote.
  const size_t bar = token.rfind('|');
  if (bar == std::string_view::npos) return std::string(token);
  const size_t before = token.find_last_of(" \"", bar);
  const size_t begin = before == std::string_view::npos ? 0 : before + 1;
  return absl::StrCat(base::ToAbsl(token.substr(0, begin)), base::ToAbsl(token.substr(bar + 1)));
}

}  // namespace runnel::inference
