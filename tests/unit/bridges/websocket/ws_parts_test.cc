// The parts of a response over WebSocket.
#include <gtest/gtest.h>

#include <string>

#include "bridges/websocket/ws_protocol.h"

namespace runnel::websocket {
namespace {

v1::WebSocketServerMessage Attached() {
  v1::WebSocketServerMessage message;
  message.set_req("c2");
  message.mutable_attached()->set_generation_id("gen_X");
  message.mutable_attached()->set_after_seq(17);
  message.mutable_attached()->set_last_seq(40);
  message.mutable_attached()->set_status(v1::GENERATION_STATUS_RUNNING);
  return message;
}

TEST(WsParts, AttachedNamesThePartsOnlyIfThereAreAny) {
  v1::WebSocketServerMessage message = Attached();
  std::string out;
  AppendMessage(Format::kJson, message, &out);
  EXPECT_EQ(out, R"({"type":"attached","req":"c2","gen":"gen_X","after":17,"last_seq":40,"status":"running"})");
  message.mutable_attached()->add_parts()->set_kind(v1::PART_KIND_REFUSAL);
  out.clear();
  AppendMessage(Format::kJson, message, &out);
  EXPECT_EQ(out, R"({"type":"attached","req":"c2","gen":"gen_X","after":17,"last_seq":40,"status":"running",)"
                 R"("parts":[{"choice":0,"index":0,"kind":"refusal","bytes":0}]})");
}

}  // namespace
}  // namespace runnel::websocket
