#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bridges/base/generation_info.h"
#include "bridges/wire/http_error.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::bridge {

// Turns the events of one generation into the bytes of a client's format. Opens no socket and writes nothing itself.
// Confined to the stream's io thread.
class StreamEncoder {
 public:
  virtual ~StreamEncoder() = default;

  // Once, before any event. An error is the whole answer: it must be one before the first byte.
  virtual absl::Status Open(std::string_view /*gen*/, const GenerationInfo& /*opened*/) { return absl::OkStatus(); }

  // Appends what the client gets for `event`, which may be nothing. With the terminal event, the end of the stream.
  virtual void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) = 0;

  // What a refusal before the first byte looks like. `repeatable`: nothing starts twice if the client asks again.
  virtual HttpError ErrorOf(const absl::Status& status, bool repeatable) const {
    return repeatable ? RepeatableErrorOf(status) : HttpErrorOf(status);
  }

  // Whether heartbeats say how far the generation is.
  virtual bool tells_progress() const { return false; }
};

}  // namespace runnel::bridge
