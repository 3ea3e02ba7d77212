#pragma once

#include <memory>
#include <string>

#include "bridges/base/bridge_metrics.h"
#include "bridges/server/server.h"
#include "bridges/sse/options.h"
#include "bridges/sse/sse_session.h"
#include "services/base/metrics.h"
#include "tests/testing/fake_inference_service.h"
#include "tests/testing/http_stream_client.h"
#include "tests/testing/wait.h"

namespace runnel::sse {

// For every test of this folder.
using testing::DeltaEvent;
using testing::DoneEvent;
using testing::FailedEvent;
using testing::FakeId;
using testing::MergedEvent;
using testing::StartedEvent;
using testing::WaitUntil;

// An SSE bridge in this process with a fake service behind it.
class SseHarness {
 public:
  static SseOptions QuickOptions() {
    SseOptions options;
    options.bridge.io_threads = 1;
    options.bridge.tick = absl::Milliseconds(5);
    options.bridge.reconnect_backoff = absl::Milliseconds(5);
    options.bridge.max_reconnect_backoff = absl::Milliseconds(20);
    return options;
  }

  explicit SseHarness(SseOptions options = QuickOptions()) : metrics(&registry, "sse") {
    options.bridge.inference = service.target();
    context = std::make_unique<SseContext>(options);
    auto created =
        bridge::Server::Create(options.bridge, &metrics, [this](bridge::IoThread* thread, bridge::Socket socket) {
          StartSession(thread, context.get(), std::move(socket));
        });
    server = *std::move(created);
    testing::WaitUntil([&] { return server->threads().links_connected() == server->threads().size(); });
  }

  std::unique_ptr<testing::HttpStreamClient> Connect(int receive_buffer_bytes = 0) {
    return *testing::HttpStreamClient::Connect(server->port(), receive_buffer_bytes);
  }
  // Sends one request on a new connection.
  testing::HttpStreamClient::Response Ask(const std::string& method, const std::string& target,
                                          const std::string& headers = "", const std::string& body = "") {
    const auto client = Connect();
    if (!client->Request(method, target, headers, body).ok()) return {};
    auto response = client->ReadResponseTo(method);
    return response.ok() ? *std::move(response) : testing::HttpStreamClient::Response{};
  }

  testing::FakeInferenceService service;
  base::Metrics registry;
  bridge::BridgeMetrics metrics;
  std::unique_ptr<SseContext> context;
  std::unique_ptr<bridge::Server> server;
};

}  // namespace runnel::sse
