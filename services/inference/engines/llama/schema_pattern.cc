#include "services/inference/engines/llama/schema_pattern.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

constexpr uint32_t kLastCodePoint = 0x10FFFF;
constexpr uint32_t kFirstSurrogate = 0xD800;
constexpr uint32_t kLastSurrogate = 0xDFFF;

// A set of code points, as sorted ranges that do not touch.
class CodePointSet {
 public:
  using Range = std::pair<uint32_t, uint32_t>;

  CodePointSet() = default;
  CodePointSet(std::initializer_list<Range> ranges) : ranges_(ranges) { Normalize(); }

  void Add(const CodePointSet& other) { ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end()); }
  void Normalize() {
    std::sort(ranges_.begin(), ranges_.end());
    std::vector<Range> merged;
    for (const Range& range : ranges_) {
      if (!merged.empty() && range.first <= merged.back().second + 1) {
        merged.back().second = std::max(merged.back().second, range.second);
      } else {
        merged.push_back(range);
      }
    }
    ranges_ = std::move(merged);
  }
  CodePointSet Complement() const {
    CodePointSet rest;
    uint32_t next = 0;
    for (const Range& range : ranges_) {
      if (range.first > next) rest.ranges_.emplace_back(next, range.first - 1);
      next = range.second + 1;
    }
    if (next <= kLastCodePoint) rest.ranges_.emplace_back(next, kLastCodePoint);
    return rest;
  }
  CodePointSet Without(const CodePointSet& other) const {
    CodePointSet outside = Complement();
    outside.Add(other);
    outside.Normalize();
    return outside.Complement();
  }
  bool Has(uint32_t code) const {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [code](const Range& range) { return range.first <= code && code <= range.second; });
  }
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

const CodePointSet& Digits() {
  static const CodePointSet set = {{'0', '9'}};
  return set;
}
const CodePointSet& WordCharacters() {
  static const CodePointSet set = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return set;
}
const CodePointSet& Blanks() {
  static const CodePointSet set = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                                   {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                   {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  return set;
}
const CodePointSet& LineEnds() {
  static const CodePointSet set = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
  return set;
}
// Code points that must be escaped in a JSON string, and surrogates, which are not characters.
const CodePointSet& Escaped() {
  static const CodePointSet set = {{0, 0x1F}, {'"', '"'}, {'\\', '\\'}, {kFirstSurrogate, kLastSurrogate}};
  return set;
}

void AppendInClass(uint32_t code, std::string* out) {
  if (code < 0x80 && absl::ascii_isalnum(static_cast<unsigned char>(code))) {
    out->push_back(static_cast<char>(code));
  } else if (code <= 0xFF) {
    absl::StrAppendFormat(out, "\\x%02x", code);
  } else if (code <= 0xFFFF) {
    absl::StrAppendFormat(out, "\\u%04x", code);
  } else {
    absl::StrAppendFormat(out, "\\U%08x", code);
  }
}

// The JSON escape of `code` as a pattern, for example `\\n` for a line end.
std::string EscapePattern(uint32_t code) {
  constexpr std::pair<uint32_t, const char*> kShort[] = {{'"', "\\\\\""}, {'\\', "\\\\\\\\"}, {'\b', "\\\\b"},
                                                         {'\t', "\\\\t"}, {'\n', "\\\\n"},    {'\f', "\\\\f"},
                                                         {'\r', "\\\\r"}};
  for (const auto& [known, text] : kShort) {
    if (known == code) return text;
  }
  return absl::StrFormat("\\\\u%04x", code);
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  // Empty if the pattern has unsupported syntax.
  std::optional<std::string> Run() {
    while (ok_ && at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        Put(Escape());
      } else if (c == '[') {
        Put(Class());
      } else if (c == '.') {
        ++at_;
        Put(LineEnds().Complement());
      } else if (c == '"' || static_cast<unsigned char>(c) < ' ') {
        ++at_;
        Put({{static_cast<unsigned char>(c), static_cast<unsigned char>(c)}});
      } else {
        ++at_;
        out_.push_back(c);
      }
    }
    if (!ok_) return std::nullopt;
    return std::move(out_);
  }

 private:
  CodePointSet Fail() {
    ok_ = false;
    return {};
  }

  void Put(const CodePointSet& set) {
    if (!ok_) return;
    std::vector<std::string> parts;
    const CodePointSet plain = set.Without(Escaped());
    if (!plain.empty()) {
      std::string& members = parts.emplace_back("[");
      for (const auto& [first, last] : plain.ranges()) {
        AppendInClass(first, &members);
        if (last > first + 1) members.push_back('-');
        if (last > first) AppendInClass(last, &members);
      }
      members.push_back(']');
    }
    for (uint32_t code = 0; code <= '\\'; ++code) {
      if (!set.Has(code) || !Escaped().Has(code)) continue;
      std::string escape = EscapePattern(code);
      const bool rare = escape.size() > 4;
      if (!rare || plain.empty()) parts.push_back(std::move(escape));
    }
    if (parts.empty()) {
      ok_ = false;
    } else if (parts.size() == 1 && !plain.empty()) {
      out_ += parts[0];
    } else {
      absl::StrAppend(&out_, "(?:", absl::StrJoin(parts, "|"), ")");
    }
  }

  std::optional<uint32_t> Hex(size_t digits) {
    if (at_ + digits > in_.size()) return std::nullopt;
    uint32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const auto c = static_cast<unsigned char>(in_[at_ + i]);
      if (!absl::ascii_isxdigit(c)) return std::nullopt;
      value = value * 16 + static_cast<uint32_t>(absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10);
    }
    at_ += digits;
    return value;
  }

  // After `\u`: four digits, or up to eight in braces.
  std::optional<uint32_t> UnicodeEscape() {
    if (at_ >= in_.size() || in_[at_] != '{') return Hex(4);
    const size_t end = in_.find('}', at_);
    if (end == std::string_view::npos || end == at_ + 1 || end - at_ > 9) return std::nullopt;
    ++at_;
    const std::optional<uint32_t> value = Hex(end - at_);
    ++at_;
    return value;
  }

  // At a backslash.
  CodePointSet Escape() {
    if (at_ + 1 >= in_.size()) return Fail();
    const char c = in_[at_ + 1];
    at_ += 2;
    std::optional<uint32_t> code;
    switch (c) {
      case 'd':
        return Digits();
      case 'D':
        return Digits().Complement();
      case 'w':
        return WordCharacters();
      case 'W':
        return WordCharacters().Complement();
      case 's':
        return Blanks();
      case 'S':
        return Blanks().Complement();
      case 'x':
        code = Hex(2);
        break;
      case 'u':
        code = UnicodeEscape();
        break;
      case 't':
        code = '\t';
        break;
      case 'n':
        code = '\n';
        break;
      case 'v':
        code = '\v';
        break;
      case 'f':
        code = '\f';
        break;
      case 'r':
        code = '\r';
        break;
      default:
        if (absl::ascii_ispunct(static_cast<unsigned char>(c))) code = static_cast<unsigned char>(c);
    }
    if (!code.has_value() || *code > kLastCodePoint || (*code >= kFirstSurrogate && *code <= kLastSurrogate)) {
      return Fail();
    }
    return {{*code, *code}};
  }

  // The next character of a class.
  CodePointSet Member() {
    if (in_[at_] == '\\') return Escape();
    const auto lead = static_cast<unsigned char>(in_[at_]);
    const size_t bytes = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (at_ + bytes > in_.size()) return Fail();
    uint32_t code = bytes == 1 ? lead : lead & (0x7Fu >> bytes);
    for (size_t i = 1; i < bytes; ++i) code = code << 6 | (static_cast<unsigned char>(in_[at_ + i]) & 0x3F);
    at_ += bytes;
    if (code > kLastCodePoint) return Fail();
    return {{code, code}};
  }

  static std::optional<uint32_t> Single(const CodePointSet& set) {
    const bool one = set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].second;
    return one ? std::optional<uint32_t>(set.ranges()[0].first) : std::nullopt;
  }

  // At an opening bracket.
  CodePointSet Class() {
    const bool negated = in_.substr(at_, 2) == "[^";
    at_ += negated ? 2 : 1;
    CodePointSet set;
    while (ok_ && at_ < in_.size() && in_[at_] != ']') {
      const CodePointSet first = Member();
      const bool range = at_ + 1 < in_.size() && in_[at_] == '-' && in_[at_ + 1] != ']';
      if (!ok_ || !range) {
        set.Add(first);
        continue;
      }
      ++at_;
      const CodePointSet last = Member();
      if (!ok_) break;
      const std::optional<uint32_t> from = Single(first);
      const std::optional<uint32_t> to = Single(last);
      if (!from.has_value() || !to.has_value() || *from > *to) return Fail();
      set.Add({{*from, *to}});
    }
    if (!ok_ || at_ >= in_.size()) return Fail();
    ++at_;
    set.Normalize();
    return negated ? set.Complement() : set;
  }

  const std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  bool ok_ = true;
};

using Json = nlohmann::ordered_json;

void MakePlain(Json* schema, bool* changed) {
  // The values of these keys are data, not schemas.
  constexpr std::string_view kData[] = {"const", "default", "enum", "examples"};
  constexpr std::string_view kMaps[] = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"};
  if (schema->is_array()) {
    for (Json& each : *schema) MakePlain(&each, changed);
  }
  if (!schema->is_object()) return;
  for (auto& [key, value] : schema->items()) {
    if (key == "pattern" && value.is_string()) {
      std::string plain = PlainPattern(value.get_ref<const std::string&>());
      *changed |= plain != value.get_ref<const std::string&>();
      value = std::move(plain);
    } else if (std::find(std::begin(kMaps), std::end(kMaps), key) != std::end(kMaps) && value.is_object()) {
      for (auto& [name, each] : value.items()) MakePlain(&each, changed);
    } else if (std::find(std::begin(kData), std::end(kData), key) == std::end(kData)) {
      MakePlain(&value, changed);
    }
  }
}

}  // namespace

std::string PlainPattern(std::string_view pattern) { return Translator(pattern).Run().value_or(std::string(pattern)); }

std::string WithPlainPatterns(const std::string& schema) {
  Json parsed = Json::parse(schema, nullptr, /*allow_exceptions=*/false);
  bool changed = false;
  if (parsed.is_object()) MakePlain(&parsed, &changed);
  return changed ? parsed.dump() : schema;
}

}  // namespace runnel::inference
