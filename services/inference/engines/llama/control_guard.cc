#include "services/inference/engines/llama/control_guard.h"

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

constexpr size_t kNonceDigits = 20;
constexpr size_t kIndexDigits = 9;
constexpr size_t kMaxDepth = 200;  // of JSON, as in llama_chat.h

std::string RandomDigits() {
  std::random_device random;
  std::uniform_int_distribution<int> digit('0', '9');
  std::string digits;
  while (digits.size() < kNonceDigits) digits += static_cast<char>(digit(random));
  return digits;
}

}  // namespace

ControlGuard::ControlGuard(const std::vector<std::string>& control_texts)
    : by_first_byte_(256), nonce_(RandomDigits()) {
  for (const std::string& text : control_texts) by_first_byte_[static_cast<uint8_t>(text[0])].push_back(text);
  for (auto& texts : by_first_byte_) {
    std::sort(texts.begin(), texts.end(), [](auto a, auto b) { return a.size() > b.size(); });
  }
}

std::string_view ControlGuard::MatchAt(std::string_view text) const {
  // Some of llama.cpp's functions take C strings.
  if (text[0] == '\0') return text.substr(0, 1);
  for (const std::string_view control : by_first_byte_[static_cast<uint8_t>(text[0])]) {
    if (text.starts_with(control)) return control;
  }
  return {};
}

std::string ControlGuard::Protect(std::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  while (!text.empty()) {
    const std::string_view control = MatchAt(text);
    if (control.empty()) {
      safe += text[0];
      text.remove_prefix(1);
      continue;
    }
    absl::StrAppend(&safe, nonce_, absl::Dec(replaced_.size(), absl::kZeroPad9));
    replaced_.emplace_back(control);
    text.remove_prefix(control.size());
  }
  return safe;
}

std::string ControlGuard::ProtectJson(const std::string& text) {
  if (text.find('\\') == std::string::npos) return Protect(text);
  // Deeper JSON is rejected before it is decoded.
  size_t depth = 0;
  for (const char c : text) {
    if ((c == '[' || c == '{') && ++depth > kMaxDepth) return Protect(text);
    if ((c == ']' || c == '}') && depth > 0) --depth;
  }
  const auto value = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  // Without escapes but for those of quotes, backslashes and control characters.
  return Protect(value.is_discarded() ? text : value.dump());
}

std::vector<PromptSegment> ControlGuard::Restore(std::string_view rendered) const {
  std::vector<PromptSegment> segments;
  size_t at = std::string_view::npos;
  while (used() && (at = rendered.find(nonce_)) != std::string_view::npos) {
    size_t index = 0;
    const std::string_view digits = rendered.substr(at + nonce_.size(), kIndexDigits);
    if (at > 0) segments.push_back({std::string(rendered.substr(0, at)), true});
    if (absl::SimpleAtoi(base::ToAbsl(digits), &index) && index < replaced_.size()) {
      segments.push_back({replaced_[index], false});
    }
    rendered.remove_prefix(std::min(rendered.size(), at + nonce_.size() + kIndexDigits));
  }
  if (!rendered.empty() || segments.empty()) segments.push_back({std::string(rendered), true});
  return segments;
}

}  // namespace runnel::inference
