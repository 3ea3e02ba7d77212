#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "bridges/openai/response_items.h"
#include "bridges/openai/responses_request.h"
#include "bridges/openai/sent_output.h"
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
  std::vector<ResponseItem> items;     // in the order of their parts
  std::string_view incomplete_reason;  // empty: null
  std::optional<std::string> error;    // the message of a failure
  std::optional<v1::Usage> usage;

  // From the state that the service returns.
  static ResponseState Of(const v1::Generation& generation, ResponseEcho echo);
  // Ends the items that are in progress. A response that ended normally with a call that is not complete is incomplete.
  void ApplyDone(const v1::Done& done);
  void ApplyFailed(const v1::Failed& failed);
};

std::string ResponseJson(const ResponseState& state);

// The sequence_number of the last event of a response in this state, whose texts may be omitted.
uint64_t LastNumber(const v1::Generation& generation);

// The events of a response. Their sequence_number depends on the log alone, so that it is the same on every bridge: it
// counts the events from the beginning of the log, so the encoder needs all deltas, unmerged. `started` becomes two
// events and each delta one, after those that begin its item. Each item but a call ends when the next one begins; calls
// end with the response. A call that is not complete has no event that ends it. The last events of an item repeat its
// content, and its log-probabilities if all of the response have at most kMaxRepeatedLogprobs bytes. A response without
// output has one empty message.
class ResponsesEncoder final : public bridge::StreamEncoder {
 public:
  enum class Kind { kNew, kStored };
  // Events up to `starting_after` are not sent, except the last event of the response: a stream that ends without an
  // event would look like an empty success.
  explicit ResponsesEncoder(Kind kind, std::optional<uint64_t> starting_after = std::nullopt)
      : kind_(kind), starting_after_(starting_after) {}

  // NotFound if the generation is not a response, or for kStored if the response is not stored.
  absl::Status Open(std::string_view gen, const bridge::GenerationInfo& opened) override;
  void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) override;
  // Sends the rest of the gap's output if that begins with what was sent, and if the numbers of the events that follow
  // are higher than those sent.
  bool EncodeGap(std::string_view gen, v1::GenerationEvent& event, std::string* out) override;
  bridge::HttpError ErrorOf(const absl::Status& status, bool repeatable) const override;
  bool delays_head() const override { return kind_ == Kind::kNew; }
  // A response that its server rejected, unless it is a background response, which can be read later.
  std::optional<bridge::HttpError> ErrorOfEnd(const v1::GenerationEvent& event) const override;

 private:
  void EncodeStarted(const v1::Started& started, std::string* out);
  void EncodeDelta(const v1::Delta& delta, std::string* out);
  void EncodeDone(const v1::Done& done, std::string* out);
  void EncodeFailed(const v1::Failed& failed, std::string* out);
  // Sends the rest of an output that the log has up to `seq`. False if its numbers would not be those of the log.
  bool Continue(uint64_t seq, const std::vector<v1::Delta>& rest, std::string* out);
  // The item to which the delta belongs, which begins if it is new. Null if it has none.
  ResponseItem* ItemOf(const v1::Delta& delta, std::string* out);
  void BeginItem(ResponseItem item, std::string* out);
  void EndItem(const ResponseItem& item, std::string* out);
  void KeepLogprobs(const std::string& logprobs, ResponseItem* item);
  // Appends the next event. `rest` is the rest of its object and begins with a comma.
  void Emit(std::string_view type, std::string_view rest, std::string* out);
  // The last event.
  void EmitEnd(std::string* out);
  // The members of an event that say which item it belongs to.
  std::string Place(const ResponseItem& item) const;
  // The same with the index of the item's content, which is always its only one.
  std::string PlaceOfContent(const ResponseItem& item) const;
  std::string Index(const ResponseItem& item) const;

  const Kind kind_;
  const std::optional<uint64_t> starting_after_;
  ResponseState state_;
  SentOutput sent_;
  uint64_t last_seq_ = 0;  // of the log
  uint64_t next_number_ = 0;
  size_t logprob_bytes_ = 0;  // of all items
};

// Those of a token with 20 alternatives are about 1.5 KiB, and four events repeat them.
inline constexpr size_t kMaxRepeatedLogprobs = 4 << 20;

}  // namespace runnel::openai
