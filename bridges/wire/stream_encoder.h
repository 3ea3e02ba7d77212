#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bridges/base/generation_info.h"
#include "bridges/wire/http_error.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// Encodes the events of one generation in the format of a client. It knows no socket. Confined to the io thread of its
// stream.
class StreamEncoder {
 public:
  virtual ~StreamEncoder() = default;

  // Called once, before any event. An error becomes the whole response.
  virtual absl::Status Open(std::string_view /*gen*/, const GenerationInfo& /*opened*/) { return absl::OkStatus(); }

  // Appends the encoded `event`, which may be empty. After the terminal event it appends the end of the stream too.
  virtual void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) = 0;

  // Appends what follows from a gap. False if what was sent cannot be continued by what the gap has: then it appends
  // the error that ends the stream.
  virtual bool EncodeGap(std::string_view gen, v1::GenerationEvent& event, std::string* out) {
    Encode(gen, event, out);
    return true;
  }

  // The response to a request that is rejected before the first byte. `repeatable`: repeating the request does not
  // start a second generation.
  virtual HttpError ErrorOf(const absl::Status& status, bool repeatable) const {
    return repeatable ? RepeatableErrorOf(status) : HttpErrorOf(status);
  }

  // Whether the head of the response waits for the first delta, the terminal event or a heartbeat, so that a generation
  // that fails before its first delta is an HTTP error.
  virtual bool delays_head() const { return false; }

  // With delays_head: the whole response to a generation whose `event`, which is terminal, precedes any delta. Empty:
  // the event is sent in a stream.
  virtual std::optional<HttpError> ErrorOfEnd(const v1::GenerationEvent& /*event*/) const { return std::nullopt; }

  // Whether heartbeats report the progress of the generation.
  virtual bool reports_progress() const { return false; }
};

}  // namespace runnel::bridge
