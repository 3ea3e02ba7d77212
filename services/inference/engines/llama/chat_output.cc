#include "services/inference/engines/llama/chat_output.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/inference/generation/part_piece.h"

namespace runnel::inference {
namespace {

// The parser starts from the beginning each time. An output that takes longer than this is parsed again only once it
// has grown by a small part, so that the time for all of it is not quadratic. 2 KiB of JSON take 0.2 ms.
constexpr std::chrono::microseconds kQuickParse{300};
constexpr size_t kGrowthDivisor = 256;

// splitmix64, http://prng.di.unimi.it/splitmix64.c (public domain).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace

std::vector<ChatOutput::Piece> ChatOutput::Add(std::string_view text) {
  std::vector<Piece> pieces;
  if (text.empty()) return pieces;
  output_ += text;
  if (plain_) {
    pieces.push_back({PartKind::kText, std::string(text), 0, nullptr});
  } else if (output_.size() >= next_parse_) {
    Update(false, &pieces);
  }
  return pieces;
}

std::vector<ChatOutput::Piece> ChatOutput::Finish() {
  std::vector<Piece> pieces;
  if (!plain_) Update(true, &pieces);
  return pieces;
}

void ChatOutput::Update(bool last, std::vector<Piece>* pieces) {
  const auto begin = std::chrono::steady_clock::now();
  ParsedOutput now;
  if (!syntax_->Parse(output_, &now)) return GiveUp(pieces);
  const bool quick = std::chrono::steady_clock::now() - begin < kQuickParse;
  next_parse_ = output_.size() + (quick ? 1 : output_.size() / kGrowthDivisor);
  if (!Extends(now)) {
    if (last) GiveUp(pieces);
    return;
  }
  const auto append = [pieces](PartKind kind, std::string& before, std::string& content) {
    if (content.size() > before.size()) pieces->push_back({kind, content.substr(before.size()), 0, nullptr});
    before = std::move(content);
  };
  append(PartKind::kReasoning, returned_.reasoning, now.reasoning);
  append(PartKind::kText, returned_.text, now.text);
  represented_ = std::max(represented_, now.end);
  AppendCalls(now, last, pieces);
  represented_ = std::min(represented_, output_.size());
  if (!last || now.complete) return;
  // What is left is the beginning of a marker that did not follow, or of a call without a name.
  const std::string rest = output_.substr(represented_);
  if (calls_.empty() && !IsBlank(rest)) {
    const bool reasons = returned_.text.empty() && !returned_.reasoning.empty();
    pieces->push_back({reasons ? PartKind::kReasoning : PartKind::kText, rest, 0, nullptr});
  }
}

bool ChatOutput::Extends(const ParsedOutput& now) const {
  if (!now.reasoning.starts_with(returned_.reasoning) || !now.text.starts_with(returned_.text)) return false;
  if (now.calls.size() < calls_.size()) return false;
  for (size_t i = 0; i < calls_.size(); ++i) {
    if (now.calls[i].name != calls_[i].opening.name || !now.arguments[i].starts_with(returned_.arguments[i])) {
      return false;
    }
  }
  return true;
}

void ChatOutput::AppendCalls(const ParsedOutput& now, bool last, std::vector<Piece>* pieces) {
  for (size_t i = 0; i < now.calls.size(); ++i) {
    const std::string& arguments = now.arguments[i];
    const ToolCall* opening = nullptr;
    if (i == calls_.size()) {
      // Until more is known than the brace with which every object begins, its id may follow.
      if (!last && i + 1 == now.calls.size() && arguments.size() < 2) return;
      Call& call = calls_.emplace_back();
      call.opening = {IdFor(now.calls[i].id), now.calls[i].name};
      opening = &call.opening;
      returned_.arguments.emplace_back();
    }
    represented_ = std::max(represented_, now.call_ends[i]);
    Call& call = calls_[i];
    std::string fragment = arguments.substr(call.bytes);
    if (fragment.empty() && opening == nullptr) continue;
    call.checker.Add(fragment);
    call.bytes = arguments.size();
    returned_.arguments[i] = arguments;
    pieces->push_back({PartKind::kToolCall, std::move(fragment), static_cast<uint32_t>(i), opening});
  }
}

// Called when the call is in calls_ already.
std::string ChatOutput::IdFor(const std::string& given) const {
  const bool used =
      std::any_of(calls_.begin(), calls_.end(), [&](const Call& call) { return call.opening.id == given; });
  if (!used && IsValidCallName(given)) return given;
  return absl::StrCat("call_", absl::Hex(Mix(seed_ ^ Mix(calls_.size())), absl::kZeroPad16));
}

void ChatOutput::GiveUp(std::vector<Piece>* pieces) {
  plain_ = true;
  const std::string rest = output_.substr(represented_);
  if (!rest.empty()) pieces->push_back({PartKind::kText, rest, 0, nullptr});
}

bool ChatOutput::calls_complete() const {
  return !calls_.empty() &&
         std::all_of(calls_.begin(), calls_.end(), [](const Call& call) { return call.checker.complete(); });
}

}  // namespace runnel::inference
