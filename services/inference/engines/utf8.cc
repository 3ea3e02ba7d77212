#include "services/inference/engines/utf8.h"

#include <cstdint>

namespace runnel::inference {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

uint8_t At(std::string_view bytes, size_t i) { return static_cast<uint8_t>(bytes[i]); }

bool IsContinuation(uint8_t byte) { return byte >= 0x80 && byte <= 0xBF; }

// What `bytes` (not empty) begins with. kPart: a character that may continue after the end of `bytes`.
enum class Kind { kChar, kPart, kBad, kSurrogatePair };
struct Head {
  Kind kind;
  size_t length;  // of the character, of the part, or of the bytes that one U+FFFD replaces
};

Head ReadHead(std::string_view bytes) {
  const uint8_t first = At(bytes, 0);
  if (first < 0x80) return {Kind::kChar, 1};
  if (first < 0xC2 || first > 0xF4) return {Kind::kBad, 1};
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  ByteRange range = SecondByteRange(first);
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Kind::kPart, i};
    if (At(bytes, i) < range.least || At(bytes, i) > range.most) return {Kind::kBad, i};
    range = {};
  }
  return {Kind::kChar, length};
}

// The same with surrogates: ED A0..AF xx is the first half of a pair, ED B0..BF xx the second.
Head ReadHeadWithSurrogates(std::string_view bytes) {
  const bool surrogate = bytes.size() >= 2 && At(bytes, 0) == 0xED && At(bytes, 1) >= 0xA0 && At(bytes, 1) <= 0xBF;
  if (!surrogate) return ReadHead(bytes);
  const bool first_of_pair = At(bytes, 1) <= 0xAF;
  if (bytes.size() == 2) return {Kind::kPart, 2};
  if (!IsContinuation(At(bytes, 2))) return {Kind::kBad, 1};
  if (!first_of_pair) return {Kind::kBad, 3};
  if (bytes.size() == 3) return {Kind::kPart, 3};
  if (At(bytes, 3) != 0xED) return {Kind::kBad, 3};
  if (bytes.size() == 4) return {Kind::kPart, 3};
  if (At(bytes, 4) < 0xB0 || At(bytes, 4) > 0xBF) return {Kind::kBad, 3};
  if (bytes.size() == 5) return {Kind::kPart, 3};
  if (!IsContinuation(At(bytes, 5))) return {Kind::kBad, 3};
  return {Kind::kSurrogatePair, 6};
}

void AppendPair(std::string_view bytes, std::string* out) {
  const uint32_t high = ((At(bytes, 1) & 0x0Fu) << 6) | (At(bytes, 2) & 0x3Fu);
  const uint32_t low = ((At(bytes, 4) & 0x0Fu) << 6) | (At(bytes, 5) & 0x3Fu);
  const uint32_t code = 0x10000 + (high << 10) + low;
  out->push_back(static_cast<char>(0xF0 | (code >> 18)));
  out->push_back(static_cast<char>(0x80 | ((code >> 12) & 0x3F)));
  out->push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
  out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
}

}  // namespace

size_t Utf8CharLength(std::string_view bytes) {
  if (bytes.empty()) return 0;
  const Head head = ReadHead(bytes);
  return head.kind == Kind::kChar ? head.length : 0;
}

void Utf8Joiner::Add(std::string_view piece, std::string* out) {
  held_.append(piece);
  Drain(false, out);
}

std::string Utf8Joiner::Add(std::string_view piece) {
  std::string out;
  out.reserve(held_.size() + piece.size());
  Add(piece, &out);
  return out;
}

std::string Utf8Joiner::Flush() {
  std::string out;
  Drain(true, &out);
  return out;
}

void Utf8Joiner::Drain(bool final, std::string* out) {
  std::string_view rest = held_;
  while (!rest.empty()) {
    const Head head = joins_pairs_ ? ReadHeadWithSurrogates(rest) : ReadHead(rest);
    if (head.kind == Kind::kPart && !final) break;
    if (head.kind == Kind::kChar) {
      out->append(rest.substr(0, head.length));
    } else if (head.kind == Kind::kSurrogatePair) {
      AppendPair(rest, out);
    } else {
      out->append(kReplacement);
    }
    rest.remove_prefix(head.length);
  }
  held_.erase(0, held_.size() - rest.size());
}

std::string ToValidUtf8(std::string_view bytes) {
  Utf8Joiner joiner;
  std::string text = joiner.Add(bytes);
  return text + joiner.Flush();
}

}  // namespace runnel::inference
