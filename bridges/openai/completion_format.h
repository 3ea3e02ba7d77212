#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "bridges/openai/chat_parts.h"
#include "bridges/openai/completion_request.h"
#include "bridges/openai/openai_error.h"
#include "bridges/openai/sent_output.h"
#include "bridges/wire/collected_generation.h"
#include "bridges/wire/stream_encoder.h"

namespace runnel::openai {

// A stream of chat.completion.chunk or text_completion objects: for a chat the role of each choice, by index; then the
// deltas of the text and, for a chat, of reasoning, tool calls and refusals; then the finish reason of each choice, the
// usage if requested, and `[DONE]`. A generation that fails or is cancelled ends with an error object and `[DONE]`.
// There are no ids: the client cannot resume.
class CompletionEncoder final : public bridge::StreamEncoder {
 public:
  CompletionEncoder(const CompletionShape& shape, uint32_t choice_count)
      : shape_(shape), choice_count_(choice_count), offsets_(choice_count) {}

  void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) override;
  // Sends the rest of the gap's output if that begins with what was sent.
  bool EncodeGap(std::string_view gen, v1::GenerationEvent& event, std::string* out) override;
  bridge::HttpError ErrorOf(const absl::Status& status, bool repeatable) const override;
  bool delays_head() const override { return true; }
  std::optional<bridge::HttpError> ErrorOfEnd(const v1::GenerationEvent& event) const override;

 private:
  void EncodeStarted(std::string_view gen, const v1::Started& started, std::string* out);
  void EncodeDelta(const v1::Delta& delta, std::string* out);
  void EncodePart(const v1::Delta& delta, std::string* out);
  void EncodeOpenings(uint32_t choice, const std::vector<StreamedCalls::Opening>& openings, std::string* out) const;
  void EncodeDone(const v1::Done& done, std::string* out);
  void BeginChunk(uint32_t choice, std::string* out) const;
  void EndChunk(std::string* out) const;

  const CompletionShape shape_;
  const uint32_t choice_count_;
  std::string head_;               // the part of every chunk before the choices
  std::vector<uint64_t> offsets_;  // characters of each choice so far
  SentOutput sent_;
  std::vector<StreamedCalls> calls_;  // of each choice; empty before there are any
};

// The response in one piece, for a generation that has ended with `done`.
std::string CompletionJson(std::string_view gen, const CompletionShape& shape, uint32_t choice_count,
                           const bridge::CollectedGeneration& collected);

// Why `done` is no success: a choice was cut short by a cancel, or, in a text completion, has a tool call or a refusal,
// which would be missing.
std::optional<bridge::HttpError> ErrorOfDone(const v1::Done& done, bool chat);

}  // namespace runnel::openai
