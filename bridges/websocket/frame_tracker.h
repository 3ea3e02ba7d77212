#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::websocket {

// Follows the frames of a client in the bytes as they come from the socket, beside Beast's parser, which reports a
// message when its payload comes but neither where it begins nor a frame that is not complete. It checks nothing: what
// breaks the rules ends the connection in the parser.
class FrameTracker {
 public:
  // Takes the next bytes. True if they begin something that they do not end: a frame, or a message whose last fragment
  // is missing. A control frame between the fragments of a message begins nothing.
  bool Feed(std::string_view bytes);

  // Whether a frame or a message has begun and not ended.
  bool unfinished() const { return in_message_ || in_frame_; }
  // Bytes up to the end of the first data message, control frames included; all of them before its end.
  uint64_t bytes_of_first_message() const { return first_bytes_; }

 private:
  void ReadHeader(std::string_view* bytes);
  void EndFrame();

  static constexpr size_t kMaxHeader = 14;

  uint8_t header_[kMaxHeader] = {};
  uint8_t header_bytes_ = 0;   // of it that have come
  bool in_frame_ = false;      // the frame has begun and not ended
  bool in_message_ = false;    // a data message has begun and not ended
  bool began_ = false;         // within the current Feed, and not ended yet
  bool first_ended_ = false;   // the first data message
  uint64_t payload_left_ = 0;  // once the header is complete
  uint64_t first_bytes_ = 0;
};

}  // namespace runnel::websocket
