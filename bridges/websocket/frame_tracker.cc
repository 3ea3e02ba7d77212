#include "bridges/websocket/frame_tracker.h"

#include <algorithm>

namespace runnel::websocket {
namespace {

// RFC 6455, section 5.2.
constexpr uint8_t kFinal = 0x80;
constexpr uint8_t kControl = 0x08;
constexpr uint8_t kMasked = 0x80;
constexpr uint8_t kLength = 0x7f;

size_t LengthBytes(uint8_t second) { return (second & kLength) == 126 ? 2 : (second & kLength) == 127 ? 8 : 0; }

// Length of the whole header, whose second byte is `second`.
size_t HeaderBytes(uint8_t second) { return 2 + LengthBytes(second) + ((second & kMasked) != 0 ? 4 : 0); }

}  // namespace

bool FrameTracker::Feed(std::string_view bytes) {
  began_ = false;
  while (!bytes.empty()) {
    const size_t before = bytes.size();
    const bool counts = !first_ended_;
    if (!in_frame_) {
      if (!in_message_) began_ = true;
      in_frame_ = true;
      header_bytes_ = 0;
    }
    if (header_bytes_ < 2 || header_bytes_ < HeaderBytes(header_[1])) {
      ReadHeader(&bytes);
    } else {
      const size_t payload = static_cast<size_t>(std::min<uint64_t>(payload_left_, bytes.size()));
      payload_left_ -= payload;
      bytes.remove_prefix(payload);
      if (payload_left_ == 0) EndFrame();
    }
    if (counts) first_bytes_ += before - bytes.size();
  }
  return began_;
}

void FrameTracker::ReadHeader(std::string_view* bytes) {
  const size_t wanted = header_bytes_ < 2 ? 2 : HeaderBytes(header_[1]);
  const size_t taken = std::min(wanted - header_bytes_, bytes->size());
  std::copy_n(bytes->data(), taken, header_ + header_bytes_);
  header_bytes_ = static_cast<uint8_t>(header_bytes_ + taken);
  bytes->remove_prefix(taken);
  if (header_bytes_ < 2 || header_bytes_ < HeaderBytes(header_[1])) return;
  payload_left_ = header_[1] & kLength;
  if (const size_t length_bytes = LengthBytes(header_[1]); length_bytes > 0) {
    payload_left_ = 0;
    for (size_t i = 0; i < length_bytes; ++i) payload_left_ = payload_left_ << 8 | header_[2 + i];
  }
  if ((header_[0] & kControl) == 0) in_message_ = true;
  if (payload_left_ == 0) EndFrame();
}

void FrameTracker::EndFrame() {
  in_frame_ = false;
  if ((header_[0] & kControl) == 0 && (header_[0] & kFinal) != 0) {
    in_message_ = false;
    first_ended_ = true;
  }
  if (!in_message_) began_ = false;
}

}  // namespace runnel::websocket
