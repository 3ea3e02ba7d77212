// Messages of WebSocket clients, in the subprotocol that the first byte selects. An accepted message must be valid, and
// the reply to any other must be a well-formed message.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "bridges/websocket/ws_error.h"
#include "bridges/websocket/ws_protocol.h"
#include "bridges/wire/cursor.h"
#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/fuzz_check.h"

namespace runnel::websocket {
namespace {

void CheckMessage(const v1::WebSocketClientMessage& message) {
  switch (message.message_case()) {
    case v1::WebSocketClientMessage::kResume:
      FUZZ_CHECK(bridge::IsGenerationId(message.resume().generation_id()));
      break;
    case v1::WebSocketClientMessage::kCancel:
      FUZZ_CHECK(bridge::IsGenerationId(message.cancel().generation_id()));
      break;
    case v1::WebSocketClientMessage::kDetach:
      FUZZ_CHECK(bridge::IsGenerationId(message.detach().generation_id()));
      break;
    case v1::WebSocketClientMessage::MESSAGE_NOT_SET:
      FUZZ_CHECK(false);
      break;
    default:
      break;
  }
}

void RunOne(Format format, std::string_view bytes) {
  v1::WebSocketClientMessage message;
  std::string req;
  const absl::Status status = ParseClientMessage(format, bytes, &message, &req);
  FUZZ_CHECK(req.size() <= kMaxReqBytes);
  v1::WebSocketAuth auth;
  const bool is_auth = ParseAuth(format, bytes, &auth).ok();
  FUZZ_CHECK(!is_auth || (status.ok() && message.auth().token() == auth.token()));
  v1::WebSocketServerMessage reply;
  reply.set_req(req);
  if (status.ok()) {
    CheckMessage(message);
    reply.mutable_pong()->set_t(message.ping().t());
  } else {
    *reply.mutable_error() = ErrorOf(status);
    FUZZ_CHECK(reply.error().status() == 400 && !reply.error().code().empty());
  }
  std::string out;
  AppendMessage(Format::kJson, reply, &out);
  FUZZ_CHECK(nlohmann::json::accept(out));
}

}  // namespace
}  // namespace runnel::websocket

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static google::protobuf::LogHandler* const quiet = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(quiet);
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  runnel::websocket::RunOne(data[0] == 'p' ? runnel::websocket::Format::kProto : runnel::websocket::Format::kJson,
                            bytes);
  return 0;
}
