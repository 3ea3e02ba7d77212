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

// The state of a response object.
struct ResponseState {
  std::string generation_id;
  ResponseEcho echo;
  std::string model;
  int64_t created_at = 0;  // Unix, seconds
  std::string_view status = "in_progress";
  std::string_view item_status;  // of the only message; empty: it does not exist yet
  std::string text;
  std::string logprobs;                // of the text, from AppendTokenList; empty: none, or too many
  std::string_view incomplete_reason;  // empty: null
  std::optional<std::string> error;    // the message of a failure
  std::optional<v1::Usage> usage;

  // From the state that the service returns.
  static ResponseState Of(const v1::Generation& generation, ResponseEcho echo);
  void ApplyDone(const v1::Done& done);
  void ApplyFailed(const v1::Failed& failed);
};

std::string ResponseJson(const ResponseState& state);

// The events of a response. Their sequence_number depends on the log alone, so that it is the same on every bridge: the
// events 0 to 3 come from `started` (seq 1), the delta with seq s is event s + 2, and the events of the end follow. So
// the encoder needs all deltas from the beginning, unmerged. The last events repeat the whole text, and its
// log-probabilities if these have at most kMaxRepeatedLogprobs bytes.
class ResponsesEncoder final : public bridge::StreamEncoder {
 public:
  enum class Kind { kNew, kStored };
  // Events up to `starting_after` are not sent, except the last event of a response that has ended.
  explicit ResponsesEncoder(Kind kind, std::optional<uint64_t> starting_after = std::nullopt)
      : kind_(kind), starting_after_(starting_after) {}

  // NotFound if the generation is not a response, or for kStored if the response is not stored. InvalidArgument if
  // `starting_after` is larger than the number of the last event.
  absl::Status Open(std::string_view gen, const bridge::GenerationInfo& opened) override;
  void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) override;
  bridge::HttpError ErrorOf(const absl::Status& status, bool repeatable) const override;
  bool delays_head() const override { return kind_ == Kind::kNew; }
  // A response that its server rejected, unless it is a background response, which can be read later.
  std::optional<bridge::HttpError> ErrorOfEnd(const v1::GenerationEvent& event) const override;

 private:
  absl::Status CheckStart(const bridge::GenerationInfo& opened);
  void EncodeStarted(std::string* out);
  void EncodeDelta(const v1::Delta& delta, uint64_t number, std::string* out);
  void EncodeEndOfText(uint64_t number, std::string* out);
  // Appends one event. `rest` is the rest of its object and begins with a comma.
  void Emit(std::string_view type, uint64_t number, std::string_view rest, std::string* out) const;
  std::string Place() const;

  const Kind kind_;
  std::optional<uint64_t> starting_after_;
  ResponseState state_;
  bool too_many_logprobs_ = false;
};

// Those of a token with 20 alternatives are about 1.5 KiB, and four events repeat them.
inline constexpr size_t kMaxRepeatedLogprobs = 4 << 20;

}  // namespace runnel::openai
