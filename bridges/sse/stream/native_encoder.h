#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "bridges/sse/stream/sse_format.h"
#include "bridges/wire/stream_encoder.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// The native events, with the ids from which a client resumes.
class NativeEncoder final : public bridge::StreamEncoder {
 public:
  // `retry_ms` is the time before a client reconnects; it is sent once.
  explicit NativeEncoder(uint32_t retry_ms) : retry_ms_(retry_ms) {}

  void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) override {
    AppendSseEvent(gen, event, std::exchange(retry_ms_, 0), out);
  }
  bool reports_progress() const override { return true; }

 private:
  uint32_t retry_ms_;
};

}  // namespace runnel::sse
