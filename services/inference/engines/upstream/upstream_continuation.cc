#include "services/inference/engines/upstream/upstream_continuation.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::inference {
namespace {

constexpr char kContinueFinalMessage[] = "continue_final_message";
constexpr char kAddGenerationPrompt[] = "add_generation_prompt";

// A last message of the client that the server continues too.
bool EndsWithAssistant(const GenerationRequest& request) {
  return request.messages.back().role == ChatRole::kAssistant;
}

uint32_t CountedTokens(const LogSegment& log) {
  uint32_t tokens = 0;
  for (const LoggedDelta& delta : log.deltas) tokens += delta.tokens;
  return tokens;
}

// Whole characters, at least as many bytes as the longest stop string if there are as many.
std::string TailOf(const std::string& text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const std::string& stop : stops) longest = std::max(longest, stop.size());
  size_t begin = text.size() - std::min(text.size(), longest);
  while (begin > 0 && begin < text.size() && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

}  // namespace

absl::StatusOr<UpstreamContinue> ParseUpstreamContinue(std::string_view name) {
  if (name == "never") return UpstreamContinue::kNever;
  if (name == "prompt") return UpstreamContinue::kPrompt;
  if (name == "final_message") return UpstreamContinue::kFinalMessage;
  if (name == "prefill") return UpstreamContinue::kPrefill;
  if (name == "replay") return UpstreamContinue::kReplay;
  return absl::InvalidArgumentError(
      absl::StrCat("'", base::ToAbsl(name), "': expected never, prompt, final_message, prefill or replay"));
}

bool HasOutput(const LogSegment& log) { return !log.deltas.empty() || !log.ended.empty(); }

bool CanContinue(UpstreamContinue mode, const GenerationRequest& request, const LogSegment& log) {
  if (!HasOutput(log) || mode == UpstreamContinue::kReplay) return true;
  if (mode == UpstreamContinue::kNever || request.choice_count != 1) return false;
  if (request.output_format.kind != OutputFormat::Kind::kText) return false;
  const bool only_text = std::all_of(log.deltas.begin(), log.deltas.end(),
                                     [](const LoggedDelta& delta) { return delta.kind == PartKind::kText; });
  if (!only_text) return false;
  if (mode == UpstreamContinue::kPrompt) return request.messages.empty();
  if (request.messages.empty()) return false;
  if (mode == UpstreamContinue::kFinalMessage) {
    return request.extra_fields.count(kContinueFinalMessage) == 0 &&
           request.extra_fields.count(kAddGenerationPrompt) == 0;
  }
  const ChatMessage& last = request.messages.back();
  return !EndsWithAssistant(request) || (last.parts.empty() && last.tool_calls.empty());
}

UpstreamContinuation ContinueFromLog(UpstreamContinue mode, std::shared_ptr<const LogSegment> log,
                                     GenerationRequest* request) {
  UpstreamContinuation continuation;
  continuation.usage = log->usage.value_or(Usage{0, CountedTokens(*log)});
  if (log->ended.size() == request->choice_count) continuation.ending = log->ended.back().reason;
  if (mode == UpstreamContinue::kReplay) {
    continuation.replayed = std::move(log);
    return continuation;
  }
  continuation.tail = TailOf(log->content, request->stop);
  if (mode == UpstreamContinue::kPrompt) {
    request->prompt += log->content;
  } else if (mode == UpstreamContinue::kPrefill && EndsWithAssistant(*request)) {
    request->messages.back().content += log->content;
  } else {
    request->messages.push_back({ChatRole::kAssistant, log->content});
  }
  if (mode == UpstreamContinue::kFinalMessage) {
    request->extra_fields[kContinueFinalMessage] = "true";
    request->extra_fields[kAddGenerationPrompt] = "false";
  }
  if (request->max_tokens.has_value()) {
    const uint32_t used = continuation.usage.completion_tokens;
    if (used >= *request->max_tokens && !continuation.ending.has_value()) continuation.ending = FinishReason::kLength;
    request->max_tokens = *request->max_tokens - std::min(used, *request->max_tokens);
  }
  return continuation;
}

}  // namespace runnel::inference
