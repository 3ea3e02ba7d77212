#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "bridges/wire/http_policy.h"
#include "bridges/link/subscription.h"
#include "bridges/sse/stream/sse_format.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// What the text of one stream looks like. SseStream sees to everything else: the header, chunks, writes, heartbeats.
// Confined to the stream's io thread.
class StreamEncoder {
 public:
  virtual ~StreamEncoder() = default;

  // Once, before any event. An error is the whole answer: it must be one before the first byte.
  virtual absl::Status Open(std::string_view /*gen*/, const bridge::Subscription::Opened& /*opened*/) {
    return absl::OkStatus();
  }

  // Appends what the client gets for `event`, which may be nothing. With the terminal event, the end of the stream.
  virtual void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) = 0;

  // What a refusal before the first byte looks like. `repeatable`: nothing starts twice if the client asks again.
  virtual bridge::HttpError ErrorOf(const absl::Status& status, bool repeatable) const {
    return repeatable ? bridge::RepeatableErrorOf(status) : bridge::HttpErrorOf(status);
  }

  // Whether heartbeats say how far the generation is.
  virtual bool tells_progress() const { return false; }
};

// The native events, with ids.
class NativeEncoder final : public StreamEncoder {
 public:
  // How long a client is to wait before it comes back; said once.
  explicit NativeEncoder(uint32_t retry_ms) : retry_ms_(retry_ms) {}

  void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) override {
    AppendSseEvent(gen, event, std::exchange(retry_ms_, 0), out);
  }
  bool tells_progress() const override { return true; }

 private:
  uint32_t retry_ms_;
};

}  // namespace runnel::sse
