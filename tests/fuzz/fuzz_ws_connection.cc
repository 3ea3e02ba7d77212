// Complete connections to the WebSocket bridge, split at any position: the HTTP request, the upgrade, the frames and
// the messages, with a service that replies automatically. For any input, the connection ends after its client has
// ended, everything sent is well-formed, and the status does not depend on where the bytes were split.

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "bridges/base/bridge_metrics.h"
#include "bridges/server/server.h"
#include "bridges/websocket/ws_context.h"
#include "bridges/websocket/ws_upgrade.h"
#include "bridges/wire/http_policy.h"
#include "runnel/v1/websocket.pb.h"
#include "services/base/metrics.h"
#include "tests/fuzz/bridge_harness.h"
#include "tests/fuzz/connection_harness.h"
#include "tests/fuzz/fuzz_check.h"

namespace runnel::websocket {
namespace {

// One bridge, which lives as long as the process.
class Bridge {
 public:
  Bridge(const std::string& inference, bool with_key) {
    options_.inference = inference;
    options_.io_threads = 1;
    if (with_key) options_.api_keys = {{"secret", "ann"}};
    policy_ = std::make_unique<bridge::HttpPolicy>(options_);
    context_ = {options_, {}, policy_.get(), &bridge_metrics_};
    auto server =
        bridge::Server::Create(options_, &bridge_metrics_, [this](bridge::IoThread* thread, bridge::Socket socket) {
          AcceptConnection(&context_, thread, std::move(socket));
        });
    FUZZ_CHECK(server.ok());
    server_ = std::move(*server);
  }

  std::string Converse(const std::vector<std::string_view>& pieces) {
    return fuzz::Converse(server_->port(), pieces, [this] { fuzz::Settle(server_.get()); });
  }

 private:
  bridge::BridgeOptions options_;
  base::Metrics metrics_;
  bridge::BridgeMetrics bridge_metrics_{&metrics_, "ws"};
  std::unique_ptr<bridge::HttpPolicy> policy_;
  WsContext context_;
  std::unique_ptr<bridge::Server> server_;
};

// Checks the frames of a server: not fragmented, not masked, in the shortest form. The last may be cut by the end of
// the connection.
void CheckFrames(std::string_view bytes, bool json) {
  while (bytes.size() >= 2) {
    const auto first = static_cast<uint8_t>(bytes[0]);
    const auto second = static_cast<uint8_t>(bytes[1]);
    FUZZ_CHECK((first & 0x70) == 0 && (first & 0x80) != 0 && second < 0x80);
    const size_t length_bytes = second < 126 ? 0 : second == 126 ? 2 : 8;
    if (bytes.size() < 2 + length_bytes) return;
    uint64_t length = length_bytes == 0 ? second : 0;
    for (size_t i = 0; i < length_bytes; ++i) length = length << 8 | static_cast<uint8_t>(bytes[2 + i]);
    FUZZ_CHECK(length_bytes == 0 || length >= (length_bytes == 2 ? 126 : 65'536));
    bytes.remove_prefix(2 + length_bytes);
    if (bytes.size() < length) return;
    const std::string_view payload = bytes.substr(0, length);
    const int opcode = first & 0x0f;
    FUZZ_CHECK(opcode == (json ? 1 : 2) || (opcode >= 8 && opcode <= 10 && length <= 125));
    if (opcode == 1) FUZZ_CHECK(nlohmann::json::accept(payload));
    v1::WebSocketServerMessage message;
    if (opcode == 2) FUZZ_CHECK(message.ParseFromArray(payload.data(), static_cast<int>(payload.size())));
    bytes.remove_prefix(length);
  }
}

// Checks a response and returns its status, 0 for none.
int CheckResponse(std::string_view response) {
  constexpr std::string_view kVersion = "HTTP/1.1 ";
  if (response.empty()) return 0;
  FUZZ_CHECK(response.size() > kVersion.size() + 3 && response.substr(0, kVersion.size()) == kVersion);
  const int status = std::stoi(std::string(response.substr(kVersion.size(), 3)));
  const size_t end = response.find("\r\n\r\n");
  FUZZ_CHECK(end != std::string_view::npos);
  const bool json = response.substr(0, end).find("runnel.v1.proto") == std::string_view::npos;
  if (status == 101) CheckFrames(response.substr(end + 4), json);
  return status;
}

}  // namespace
}  // namespace runnel::websocket

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using runnel::websocket::CheckResponse;
  const runnel::fuzz::SplitInput input = runnel::fuzz::ParseInput(data, size);
  auto& bridge = *runnel::fuzz::Bridges<runnel::websocket::Bridge>(/*with_silence=*/true)[input.choice & 1];
  const int status = CheckResponse(bridge.Converse(input.pieces));
  if (input.pieces.size() > 1) FUZZ_CHECK(CheckResponse(bridge.Converse({input.bytes})) == status);
  return 0;
}
