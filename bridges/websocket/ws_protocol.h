#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"
#include "runnel/v1/websocket.pb.h"

// Parses and writes the messages of /v1/ws in both subprotocols; websocket.proto is their specification. Pure functions
// without sockets, so that table tests and fuzzers reach all of them.
namespace runnel::websocket {

// The encoding of the messages of one connection.
enum class Format { kJson, kProto };

inline constexpr std::string_view kJsonProtocol = "runnel.v1";
inline constexpr std::string_view kProtoProtocol = "runnel.v1.proto";

// The longest `req` that a client may choose.
inline constexpr size_t kMaxReqBytes = 64;

// The subprotocol of a connection.
struct Negotiated {
  Format format = Format::kJson;
  // The subprotocol to name in the response; empty if the client offered none.
  std::string_view protocol;
};
// Chooses the first supported subprotocol in `offered`, the Sec-WebSocket-Protocol headers joined by commas.
// InvalidArgument if the client offered subprotocols and none is supported.
absl::Status NegotiateProtocol(std::string_view offered, Negotiated* negotiated);

// Parses one message of a client. Sets `req` to the message's req, also on an error if it could be read, so that the
// reply can name it. InvalidArgument with reason BAD_FRAME: the bytes are not a valid message. InvalidArgument with
// another reason: a value in the message is not valid, or a key is unknown.
absl::Status ParseClientMessage(Format format, std::string_view bytes, v1::WebSocketClientMessage* message,
                                std::string* req);

// Parses the first message of a client that is not authenticated. InvalidArgument if it is not `auth`; of another
// message it parses only as much as it needs to know that.
absl::Status ParseAuth(Format format, std::string_view bytes, v1::WebSocketAuth* auth);

// Whether `text`, otherwise valid UTF-8, ends in the middle of a character. Text messages must not; Beast does not
// check this if the last fragment is empty.
bool EndsWithinCharacter(std::string_view text);

// Whether ParseClientMessage failed with BAD_FRAME.
bool IsBadFrame(const absl::Status& status);

// Appends one message that is not an event.
void AppendMessage(Format format, const v1::WebSocketServerMessage& message, std::string* out);

// Appends an event of generation `gen`. `req` is empty except for the first event of a `generate`. In JSON these are
// the bytes of the SSE data, plus `req`. In Protobuf, sets the generation_id of `event`.
void AppendEvent(Format format, std::string_view gen, std::string_view req, v1::GenerationEvent* event,
                 std::string* out);

}  // namespace runnel::websocket
