#include "bridges/wire/media_type.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "services/base/strings.h"

namespace runnel::bridge {
namespace {

constexpr size_t kMaxRanges = 64;
constexpr size_t kMaxParameters = 16;

bool IsTokenChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         (c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
}

// Scans the value of a field.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool done() const { return at_ >= text_.size(); }
  void SkipBlanks() {
    while (!done() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
  }
  bool Take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  // Empty if there is none.
  std::string_view Token() {
    const size_t begin = at_;
    while (!done() && IsTokenChar(text_[at_])) ++at_;
    return text_.substr(begin, at_ - begin);
  }
  // The rest of a quoted string, after its opening quote. False if it does not end.
  bool Quoted(std::string* out) {
    while (!done()) {
      char c = text_[at_++];
      if (c == '"') return true;
      if (c == '\\') {
        if (done()) return false;
        c = text_[at_++];
      }
      out->push_back(c);
    }
    return false;
  }
  // To the comma that ends the member; commas within quotes do not.
  void SkipMember() {
    std::string ignored;
    while (!done() && text_[at_] != ',') {
      if (text_[at_++] == '"') Quoted(&ignored);
    }
  }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

// `1`, `0.5`, `1.000`: at most three digits after the point.
std::optional<int> ParseQuality(std::string_view text) {
  if (text.empty() || text.size() > 5 || (text[0] != '0' && text[0] != '1')) return std::nullopt;
  if (text.size() > 1 && text[1] != '.') return std::nullopt;
  int quality = text[0] == '1' ? 1000 : 0;
  int weight = 100;
  for (size_t i = 2; i < text.size(); ++i, weight /= 10) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    quality += (text[i] - '0') * weight;
  }
  if (quality > 1000) return std::nullopt;
  return quality;
}

bool ScanParameter(Scanner* scanner, MediaRange* range) {
  const std::string name = absl::AsciiStrToLower(base::ToAbsl(scanner->Token()));
  if (name.empty() || !scanner->Take('=')) return false;
  std::string value;
  if (scanner->Take('"')) {
    if (!scanner->Quoted(&value)) return false;
  } else {
    value = std::string(scanner->Token());
    if (value.empty()) return false;
  }
  if (name == "q") {
    const std::optional<int> quality = ParseQuality(value);
    if (quality.has_value()) range->quality = *quality;
    return quality.has_value();
  }
  range->parameters.emplace_back(name, std::move(value));
  return range->parameters.size() <= kMaxParameters;
}

bool ScanRange(Scanner* scanner, MediaRange* range) {
  range->type = absl::AsciiStrToLower(base::ToAbsl(scanner->Token()));
  if (range->type.empty() || !scanner->Take('/')) return false;
  range->subtype = absl::AsciiStrToLower(base::ToAbsl(scanner->Token()));
  if (range->subtype.empty() || (range->type == "*" && range->subtype != "*")) return false;
  scanner->SkipBlanks();
  while (scanner->Take(';')) {
    scanner->SkipBlanks();
    // RFC 9110 allows an empty parameter: `a/b; ;c=d`.
    Scanner ahead = *scanner;
    if (ahead.done() || ahead.Take(';') || ahead.Take(',')) continue;
    if (!ScanParameter(scanner, range)) return false;
    scanner->SkipBlanks();
  }
  Scanner ahead = *scanner;
  return ahead.done() || ahead.Take(',');
}

// How exactly `range` names the type: 0 not at all, 1 by */*, 2 by type/*, 3 by its name.
int Specificity(const MediaRange& range, std::string_view type, std::string_view subtype) {
  if (range.type == "*") return 1;
  if (range.type != type) return 0;
  if (range.subtype == "*") return 2;
  return range.subtype == subtype ? 3 : 0;
}

}  // namespace

std::vector<MediaRange> ParseMediaRanges(std::string_view list) {
  std::vector<MediaRange> ranges;
  Scanner scanner(list);
  while (!scanner.done() && ranges.size() < kMaxRanges) {
    scanner.SkipBlanks();
    if (scanner.Take(',')) continue;
    MediaRange range;
    const bool ok = ScanRange(&scanner, &range);
    scanner.SkipMember();
    if (ok) ranges.push_back(std::move(range));
  }
  return ranges;
}

Acceptance AcceptanceOf(std::string_view accept, std::string_view type, std::string_view subtype) {
  const std::vector<MediaRange> ranges = ParseMediaRanges(accept);
  if (ranges.empty()) return {1000, false};
  Acceptance best;
  int most = 0;
  for (const MediaRange& range : ranges) {
    const int specificity = Specificity(range, type, subtype);
    if (specificity == 0 || specificity < most) continue;
    // Listed twice, for example with different parameters: the higher quality counts.
    best.quality = specificity == most ? std::max(best.quality, range.quality) : range.quality;
    best.named = specificity == 3;
    most = specificity;
  }
  return best;
}

bool PrefersEventStream(std::string_view accept) {
  const Acceptance stream = AcceptanceOf(accept, "text", "event-stream");
  const Acceptance json = AcceptanceOf(accept, "application", "json");
  if (stream.quality != json.quality) return stream.quality > json.quality;
  return stream.quality > 0 && stream.named;
}

bool IsJsonContentType(std::string_view content_type) {
  const std::vector<MediaRange> ranges = ParseMediaRanges(content_type);
  if (ranges.size() != 1 || content_type.find(',') != std::string_view::npos) return false;
  if (ranges[0].type != "application" || ranges[0].subtype != "json") return false;
  return std::all_of(ranges[0].parameters.begin(), ranges[0].parameters.end(), [](const auto& parameter) {
    if (parameter.first != "charset") return true;
    return absl::EqualsIgnoreCase(parameter.second, "utf-8") || absl::EqualsIgnoreCase(parameter.second, "utf8") ||
           absl::EqualsIgnoreCase(parameter.second, "us-ascii");
  });
}

}  // namespace runnel::bridge
