#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"
#include "runnel/v1/websocket.pb.h"

// The messages of /v1/ws as bytes, in both subprotocols; websocket.proto is their specification. Pure functions: no
// sockets here, so that tables and fuzzers reach all of it.
namespace runnel::websocket {

// How the messages of one connection are written.
enum class Format { kJson, kProto };

inline constexpr std::string_view kJsonProtocol = "runnel.v1";
inline constexpr std::string_view kProtoProtocol = "runnel.v1.proto";

// The longest `req` a client may choose; it is echoed.
inline constexpr size_t kMaxReqBytes = 64;

// Which subprotocol to speak with a client whose Sec-WebSocket-Protocol headers, joined by commas, are `offered`.
struct Negotiated {
  Format format = Format::kJson;
  // To echo; empty if the client offered none, for then none may be named.
  std::string_view protocol;
};
// The first of ours that the client named. InvalidArgument if it named some and none is ours.
absl::Status NegotiateProtocol(std::string_view offered, Negotiated* negotiated);

// Parses one message of a client. `req` becomes the req of the message, also on an error if it could be read, so that
// the reply can name it. InvalidArgument with reason BAD_FRAME: these bytes are not a message; with another reason: the
// message asks for something impossible, or has a key that is not known.
absl::Status ParseClientMessage(Format format, std::string_view bytes, v1::WebSocketClientMessage* message,
                                std::string* req);

// Parses the first message of a client that has not given its key yet. InvalidArgument if it is not `auth`; of any
// other message no more is parsed than it takes to see that.
absl::Status ParseAuth(Format format, std::string_view bytes, v1::WebSocketAuth* auth);

// Whether `text`, of which every other character is whole, ends within one: a rule of text messages that Beast does not
// apply if the last fragment is empty.
bool EndsWithinCharacter(std::string_view text);

// Whether `status` is a BAD_FRAME of ParseClientMessage.
bool IsBadFrame(const absl::Status& status);

// Appends one message that is no event.
void AppendMessage(Format format, const v1::WebSocketServerMessage& message, std::string* out);

// Appends an event of generation `gen`. `req` is empty but for the first event of a `generate`. In JSON, but for req,
// these are the bytes of the SSE data. `event` is changed in its generation_id only.
void AppendEvent(Format format, std::string_view gen, std::string_view req, v1::GenerationEvent* event,
                 std::string* out);

}  // namespace runnel::websocket
