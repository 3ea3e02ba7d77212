#include "tests/bench/peers/token_source.h"

#include <zlib.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/inference/engines/scripted_engine.h"

namespace runnel::bench {
namespace {

double NumberAfter(const std::string& body, const char* key, double otherwise) {
  const size_t at = body.find(key);
  return at == std::string::npos ? otherwise : std::atof(body.c_str() + at + std::char_traits<char>::length(key));
}

}  // namespace

TokenPlan PlanOf(const std::string& body) {
  TokenPlan plan;
  plan.seed = static_cast<uint64_t>(NumberAfter(body, "\"seed\":", 1));
  plan.tokens = static_cast<uint32_t>(NumberAfter(body, "\"scripted.tokens\":\"", 100));
  plan.pace = NumberAfter(body, "\"scripted.tokens_per_second\":\"", 30);
  plan.first_ms = NumberAfter(body, "\"scripted.first_token_ms\":\"", 0);
  plan.stepped = NumberAfter(body, "\"scripted.stepped\":\"", 0) > 0;
  plan.stalled = body.find("\"scripted.stall_at\"") != std::string::npos;
  return plan;
}

int64_t NowMicros() {
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

TokenSource::TokenSource(std::string generation_id, const TokenPlan& plan)
    : id_(std::move(generation_id)), plan_(plan), created_us_(NowMicros()) {
  first_due_us_ = created_us_ + static_cast<int64_t>(plan.first_ms * 1000);
  if (plan.stepped) {
    const double interval = 1e6 / plan.pace;
    first_due_us_ = static_cast<int64_t>(std::ceil(static_cast<double>(first_due_us_) / interval) * interval);
  }
  due_us_ = created_us_;
}

void TokenSource::AppendNext(int64_t now_us, std::string* out) {
  ++seq_;
  if (seq_ == 1) {
    absl::StrAppend(
        out, "{\"type\":\"started\",\"gen\":\"", id_,
        "\",\"seq\":1,\"model\":\"scripted\",\"created_at\":\"2026-01-01T00:00:00Z\",\"prompt_tokens\":1,\"ms\":0}");
  } else if (next_ < plan_.tokens) {
    AppendDelta(now_us, out);
  } else {
    AppendDone(now_us, out);
  }
  due_us_ = first_due_us_ + static_cast<int64_t>(next_ * (1e6 / plan_.pace));
  if (ended_ || plan_.stalled) due_us_ = std::numeric_limits<int64_t>::max();
}

void TokenSource::AppendDelta(int64_t now_us, std::string* out) {
  const std::string text = inference::StampedToken(plan_.seed, 0, next_++, absl::Microseconds(now_us));
  text_bytes_ += text.size();
  crc32_ = static_cast<uint32_t>(crc32_z(crc32_, reinterpret_cast<const Bytef*>(text.data()), text.size()));
  // No word of the scripted engine needs escaping.
  absl::StrAppend(out, "{\"type\":\"delta\",\"gen\":\"", id_, "\",\"seq\":", seq_, ",\"choice\":0,\"text\":\"", text,
                  "\",\"tokens\":1,\"ms\":", (now_us - created_us_) / 1000, "}");
}

void TokenSource::AppendDone(int64_t now_us, std::string* out) {
  char hex[9];
  std::snprintf(hex, sizeof hex, "%08x", crc32_);
  ended_ = true;
  absl::StrAppend(out, "{\"type\":\"done\",\"gen\":\"", id_, "\",\"seq\":", seq_, ",\"final\":true,\"events\":", seq_,
                  ",\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"text_bytes\":", text_bytes_, ",\"crc32\":\"",
                  hex);
  absl::StrAppend(out, "\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":", next_,
                  ",\"total_tokens\":", next_ + 1, "},\"ms\":", (now_us - created_us_) / 1000, "}");
}

}  // namespace runnel::bench
