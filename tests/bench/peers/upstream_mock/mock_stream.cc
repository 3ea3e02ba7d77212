#include "tests/bench/peers/upstream_mock/mock_stream.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace runnel::bench {
namespace {

constexpr int kCreated = 1'767'225'600;  // 2026-01-01
constexpr int kPromptTokens = 4;
// The parts of a plan that has them: reasoning, text, and two calls.
constexpr uint32_t kParts = 4;
constexpr uint32_t kTextPart = 1;
constexpr uint32_t kFirstCall = 2;

}  // namespace

MockStream::MockStream(const MockRequest& request, uint64_t number, int64_t received_us)
    : request_(request), received_us_(received_us), interval_us_(1e6 / request.plan.pace) {
  const double shift = request_.plan.phase * interval_us_;
  first_due_us_ = shift + std::ceil((static_cast<double>(received_us) - shift) / interval_us_) * interval_us_;
  head_ =
      absl::StrCat("data: {\"id\":\"", request_.chat ? "chatcmpl-" : "cmpl-", absl::Dec(number, absl::kZeroPad16),
                   "\",\"object\":\"", request_.chat ? "chat.completion.chunk" : "text_completion",
                   "\",\"created\":", kCreated, ",\"model\":", nlohmann::json(request_.model).dump(), ",\"choices\":[");
}

void MockStream::AppendChunk(std::string_view choice, std::string* out) const {
  out->append(head_).append("{\"index\":0,").append(choice);
  out->append(request_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n");
}

void MockStream::AppendStart(std::string* out) {
  if (!request_.chat) return;
  AppendChunk(R"("delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)", out);
}

int64_t MockStream::due_us() const { return static_cast<int64_t>(std::ceil(first_due_us_ + next_ * interval_us_)); }

uint32_t MockStream::PartOf(uint32_t token) const {
  return static_cast<uint32_t>(uint64_t{token} * kParts / request_.plan.tokens);
}

void MockStream::AppendDelta(const NumberedToken& token, std::string* out) const {
  const uint64_t seed = request_.plan.seed;
  const uint32_t part = request_.plan.parts ? PartOf(token.index) : kTextPart;
  if (!request_.chat || part < kFirstCall) {
    out->append(!request_.chat      ? "\"text\":\""
                : part == kTextPart ? "\"delta\":{\"content\":\""
                                    : "\"delta\":{\"reasoning_content\":\"");
    AppendTokenJson(seed, token, out);
    out->append(request_.chat ? "\"}" : "\"");
    return;
  }
  const uint32_t call = part - kFirstCall;
  absl::StrAppend(out, "\"delta\":{\"tool_calls\":[{\"index\":", call, ",");
  const bool first = token.index == 0 || PartOf(token.index - 1) != part;
  if (first) absl::StrAppend(out, "\"id\":\"call_", seed, "_", call, "\",\"type\":\"function\",");
  out->append("\"function\":{");
  if (first) absl::StrAppend(out, "\"name\":\"tool", call, "\",");
  out->append(first ? R"("arguments":"{\"t\":\")" : R"("arguments":")");
  AppendTokenJsonTwice(seed, token, out);
  const bool last = token.index + 1 == request_.plan.tokens || PartOf(token.index + 1) != part;
  out->append(last ? R"(\"}"}}]})" : R"("}}]})");
}

void MockStream::AppendNext(int64_t now_us, std::string* out) {
  if (next_ < request_.plan.tokens) {
    out->append(head_).append("{\"index\":0,");
    AppendDelta({next_++, received_us_, now_us}, out);
    out->append(",\"logprobs\":null,\"finish_reason\":null}");
    out->append(request_.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
  }
  if (next_ < request_.plan.tokens) return;
  ended_ = true;
  const bool called = request_.chat && request_.plan.parts && next_ > 0 && PartOf(next_ - 1) >= kFirstCall;
  AppendChunk(called ? R"("delta":{"content":""},"logprobs":null,"finish_reason":"tool_calls","stop_reason":null)"
              : request_.chat ? R"("delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null)"
                              : R"("text":"","logprobs":null,"finish_reason":"stop","stop_reason":null)",
              out);
  if (request_.include_usage) {
    absl::StrAppend(out, head_, "],\"usage\":{\"prompt_tokens\":", kPromptTokens, ",\"completion_tokens\":", next_,
                    ",\"total_tokens\":", next_ + kPromptTokens, "}}\n\n");
  }
  out->append("data: [DONE]\n\n");
}

}  // namespace runnel::bench
