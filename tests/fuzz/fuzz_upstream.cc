// Streams of an upstream: for any bytes in pieces of any size, the sink gets valid text and one end.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "services/base/request_limits.h"
#include "services/inference/engines/upstream/plain_chunk.h"
#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_failure.h"
#include "services/inference/engines/upstream/upstream_output.h"
#include "services/inference/engines/utf8.h"
#include "services/inference/generation/wake_set.h"
#include "tests/fuzz/fuzz_check.h"

namespace {

using runnel::inference::EventSink;
using runnel::inference::Failed;
using runnel::inference::FinishReason;
using runnel::inference::PartKind;
using runnel::inference::PartPiece;
using runnel::inference::Tokens;
using runnel::inference::UpstreamOutput;
using runnel::inference::WakeSet;

class CheckingSink final : public EventSink {
 public:
  void Begin() override {}
  void SetPromptTokens(uint32_t, uint32_t) override { FUZZ_CHECK(!ended); }
  void SetUsage(const runnel::inference::Usage&) override { FUZZ_CHECK(!ended); }
  void SetPrefillShare(float) override {}
  void Append(uint32_t choice, std::string_view text, Tokens tokens, WakeSet*) override {
    FUZZ_CHECK(!ended && choice < 2 && !choice_ended[choice] && !text.empty());
    FUZZ_CHECK(runnel::inference::ToValidUtf8(text) == text);
    for (const auto& each : tokens.logprobs) {
      FUZZ_CHECK(std::isfinite(each.logprob) && each.logprob <= 0 && each.top.size() <= 20);
    }
    texts[choice] += text;
  }
  void AppendPart(uint32_t choice, const PartPiece& piece, Tokens tokens, WakeSet* wake) override {
    if (piece.kind == PartKind::kText) return Append(choice, piece.content, std::move(tokens), wake);
    FUZZ_CHECK(!ended && choice < 2 && !choice_ended[choice]);
    FUZZ_CHECK(!piece.content.empty() || piece.opening != nullptr);
    FUZZ_CHECK(runnel::inference::ToValidUtf8(piece.content) == piece.content);
    if (piece.kind == PartKind::kToolCall) {
      // Numbered in the order in which they open, which happens once.
      FUZZ_CHECK((piece.opening != nullptr) == (piece.call == calls[choice]));
      FUZZ_CHECK(piece.call <= calls[choice] && piece.call < runnel::base::kMaxToolCalls);
      if (piece.opening != nullptr) {
        ++calls[choice];
        for (const std::string& name : {piece.opening->id, piece.opening->name}) {
          FUZZ_CHECK(runnel::inference::ToValidUtf8(name) == name && runnel::inference::IsValidCallName(name));
        }
        parts[choice] += piece.opening->id + piece.opening->name;
      }
    }
    // The same whatever the pieces of the stream are.
    parts[choice] += std::to_string(static_cast<int>(piece.kind)) + std::to_string(piece.call);
    parts[choice] += piece.content;
  }
  void EndChoice(uint32_t choice, FinishReason, WakeSet*) override {
    FUZZ_CHECK(!ended && choice < 2 && !choice_ended[choice]);
    choice_ended[choice] = true;
    ended = choice_ended[0] && choice_ended[1];
  }
  void EndAll(FinishReason, WakeSet*) override { End(); }
  void Fail(Failed, WakeSet*) override { End(); }
  bool cancelled() const override { return false; }
  void End() {
    FUZZ_CHECK(!ended);
    ended = true;
  }

  std::string texts[2];
  std::string parts[2];  // all other pieces
  uint32_t calls[2] = {};
  bool choice_ended[2] = {};
  bool ended = false;
};

// The fast parser takes a chunk only if it agrees with the other one.
void ComparePlain(std::string_view data) {
  const auto plain = runnel::inference::ParsePlainChunk(data);
  if (!plain.has_value() || data.find("-0") != std::string_view::npos) return;
  const auto any = runnel::inference::ParseAnyUpstreamChunk(data);
  FUZZ_CHECK(any.ok() && any->fragments.size() == 1 && !any->usage.has_value() && !any->error.has_value());
  FUZZ_CHECK(any->fragments[0].choice == plain->choice && any->fragments[0].bytes == plain->text);
  using Kind = runnel::inference::UpstreamFragment::Kind;
  FUZZ_CHECK(any->fragments[0].kind == (plain->is_reasoning ? Kind::kReasoning : Kind::kText));
  FUZZ_CHECK(any->fragments[0].logprobs.empty());
}

// Of each line after "data:".
void ComparePlainLines(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view line = bytes.substr(0, bytes.find('\n'));
    bytes.remove_prefix(std::min(bytes.size(), line.size() + 1));
    if (line.starts_with("data:")) ComparePlain(line.substr(5));
  }
}

// The output of both choices, from `bytes` in pieces of `piece`.
std::string Read(std::string_view bytes, size_t piece) {
  UpstreamOutput::Options options;
  options.limits = {4096, 4096};
  options.max_text_bytes = 64 << 10;
  CheckingSink sink;
  WakeSet wake;
  UpstreamOutput output(2, options, &sink);
  for (size_t at = 0; at < bytes.size(); at += piece) output.Add(bytes.substr(at, piece), &wake);
  output.Finish(runnel::inference::Unavailable("cut"), &wake);
  FUZZ_CHECK(sink.ended && output.ended());
  return sink.texts[0] + '\0' + sink.texts[1] + '\0' + sink.parts[0] + '\0' + sink.parts[1];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  ComparePlainLines(bytes);
  FUZZ_CHECK(Read(bytes, SIZE_MAX / 2) == Read(bytes, 1 + size % 7));
  return 0;
}
