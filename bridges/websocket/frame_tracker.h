#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace runnel::websocket {

// Follows the frames of a client in the bytes from the socket, next to Beast's parser. The parser reports the payload
// of a message, but neither where the message begins nor that a frame is incomplete. This class checks nothing: the
// parser ends a connection that breaks the protocol.
class FrameTracker {
 public:
  // Takes the next bytes. True if a frame or message begins in them and does not end in them. A control frame between
  // the fragments of a message does not count.
  bool Feed(std::string_view bytes);

  // Whether a frame or a message has begun and not ended.
  bool unfinished() const { return in_message_ || in_frame_; }
  // Bytes up to the end of the first data message, including control frames; until then, all bytes so far.
  uint64_t bytes_of_first_message() const { return first_bytes_; }

 private:
  void ReadHeader(std::string_view* bytes);
  void EndFrame();

  static constexpr size_t kMaxHeader = 14;

  uint8_t header_[kMaxHeader] = {};
  uint8_t header_bytes_ = 0;   // bytes of header_ that have arrived
  bool in_frame_ = false;      // the frame has begun and not ended
  bool in_message_ = false;    // a data message has begun and not ended
  bool began_ = false;         // something began in the current Feed and has not ended
  bool first_ended_ = false;   // the first data message has ended
  uint64_t payload_left_ = 0;  // valid once the header is complete
  uint64_t first_bytes_ = 0;
};

}  // namespace runnel::websocket
