#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "bridges/sse/stream/sse_format.h"
#include "bridges/wire/stream_encoder.h"
#include "runnel/v1/inference.pb.h"

namespace runnel::sse {

// The native events, with the ids from which a client resumes. If parts were opened before the cursor, `attached` comes
// first; it has no id.
class NativeEncoder final : public bridge::StreamEncoder {
 public:
  // `retry_ms` is the time before a client reconnects; it is sent once.
  explicit NativeEncoder(uint32_t retry_ms) : retry_ms_(retry_ms) {}

  absl::Status Open(std::string_view gen, const bridge::GenerationInfo& opened) override {
    if (opened.parts.empty()) return absl::OkStatus();
    attached_ = std::make_unique<std::string>();
    AppendAttached(gen, opened, std::exchange(retry_ms_, 0), &*attached_);
    return absl::OkStatus();
  }
  void Encode(std::string_view gen, v1::GenerationEvent& event, std::string* out) override {
    if (attached_ != nullptr) out->append(*std::exchange(attached_, nullptr));
    AppendSseEvent(gen, event, std::exchange(retry_ms_, 0), out);
  }
  bool reports_progress() const override { return true; }

 private:
  uint32_t retry_ms_;
  std::unique_ptr<std::string> attached_;  // until the first event
};

}  // namespace runnel::sse
