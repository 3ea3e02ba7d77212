#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bridges/openai/responses_request.h"
#include "bridges/wire/stream_encoder.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::openai {

// A response object at one moment.
struct ResponseState {
  std::string generation_id;
  ResponseEcho echo;
  std::string model;
  int64_t created_at = 0;  // Unix, seconds
  std::string_view status = "in_progress";
  std::string_view item_status;  // of the one message; empty: it has none yet
  std::string text;
  std::string logprobs;  // of the text, as AppendTokenList makes them; empty: it has none, or they are too many
  std::string_view incomplete_reason;  // empty: null
  std::optional<std::string> error;    // the message of a failure
  std::optional<v1::Usage> usage;

  // As the service tells it.
  static ResponseState Of(const v1::Generation& generation, ResponseEcho echo);
  void ApplyDone(const v1::Done& done);
  void ApplyFailed(const v1::Failed& failed);
};

std::string ResponseJson(const ResponseState& state);

// The events of a response. Their sequence_number is a function of the log alone, the same on every bridge and at every
// time: 0 to 3 are made of `started` (seq 1), the delta with seq s has s + 2, and what follows the text goes on from
// there. So each delta must come alone (unmerged), and from the beginning: the last events have the whole text, and its
// log-probabilities as long as those have at most kMaxRepeatedLogprobs bytes.
class ResponsesEncoder final : public bridge::StreamEncoder {
 public:
  enum class Of { kNew, kStored };
  // Events up to `starting_after` are not sent, but for the last one of a response that has ended.
  explicit ResponsesEncoder(Of of, std::optional<uint64_t> starting_after = std::nullopt)
      : of_(of), starting_after_(starting_after) {}

  // NotFound if the generation is not a response, or a stored one is wanted and this one is not stored. InvalidArgument
  // if `starting_after` lies beyond the last event that there is.
  absl::Status Open(std::string_view gen, const bridge::GenerationInfo& opened) override;
  void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) override;
  bridge::HttpError ErrorOf(const absl::Status& status, bool repeatable) const override;

 private:
  absl::Status CheckStart(const bridge::GenerationInfo& opened);
  void EncodeStarted(std::string* out);
  void EncodeDelta(const v1::Delta& delta, uint64_t number, std::string* out);
  void EncodeEndOfText(uint64_t number, std::string* out);
  // One event: its type, its number, and the rest of its object, which begins with a comma.
  void Emit(std::string_view type, uint64_t number, std::string_view rest, std::string* out) const;
  std::string Place() const;

  const Of of_;
  std::optional<uint64_t> starting_after_;
  ResponseState state_;
  bool too_many_logprobs_ = false;
};

// Of a token with 20 others they are about 1.5 KiB, and four events in a row repeat them.
inline constexpr size_t kMaxRepeatedLogprobs = 4 << 20;

}  // namespace runnel::openai
