#include <gtest/gtest.h>

#include <string>

#include "tests/unit/bridges/websocket/bridge_fixture.h"

namespace runnel::websocket {
namespace {

class WsRequestSizeTest : public BridgeFixture {};

TEST_F(WsRequestSizeTest, ARequestAboveTheServicesLimitFailsAlone) {
  ws_options.max_message_bytes = 16 << 20;
  Start();
  const auto client = Connect();
  Json large = Generate("large", 1, 10);
  large["body"]["prompt"] = std::string(4'300'000, 'x');
  large["body"].erase("messages");
  Send(client.get(), large);
  const Json error = ReadUntil(client.get(), "error");
  EXPECT_EQ(error["req"].get<std::string>(), "large");
  EXPECT_EQ(error["error"]["code"].get<std::string>(), "request_too_large");
  EXPECT_EQ(error["error"]["status"].get<int>(), 413);
  Send(client.get(), Generate("small", 2, 10));
  std::string gen;
  EXPECT_EQ(ReadGeneration(client.get(), &gen), Text(2, 10));
  EXPECT_EQ(Metric("runnel_link_losses_total"), 0);
}

}  // namespace
}  // namespace runnel::websocket
