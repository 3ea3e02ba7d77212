#include "tests/unit/bridges/websocket/bridge_fixture.h"

#include <grpcpp/grpcpp.h>
#include <zlib.h>

#include <map>
#include <regex>

#include "bridges/server/server.h"
#include "bridges/websocket/ws_upgrade.h"
#include "services/inference/engines/scripted_engine.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/rpc/inference_service.h"
#include "tests/testing/wait.h"

namespace runnel::websocket {

using testing::WsClient;

struct BridgeFixture::Processes {
  Processes()
      : engine(inference::ScriptedEngine::Options()),
        manager(&engine, &service_metrics, {}),
        service(&manager, &live, {}) {}
  ~Processes() {
    server.reset();
    engine.Stop();
    manager.Stop();
    if (grpc_server != nullptr) {
      grpc_server->Shutdown(std::chrono::system_clock::now());
      grpc_server->Wait();
    }
    EXPECT_TRUE(live.WaitUntilNone(absl::Seconds(10)));
  }

  base::Metrics service_metrics;
  inference::LiveCalls live;
  inference::ScriptedEngine engine;
  inference::GenerationManager manager;
  inference::InferenceService service;
  std::unique_ptr<grpc::Server> grpc_server;

  base::Metrics metrics;
  bridge::BridgeMetrics bridge_metrics{&metrics, "ws"};
  WsContext context;
  std::unique_ptr<bridge::HttpPolicy> policy;
  std::unique_ptr<bridge::Server> server;
};

BridgeFixture::BridgeFixture() {
  bridge_options.io_threads = 2;
  bridge_options.tick = absl::Milliseconds(10);
}

BridgeFixture::~BridgeFixture() = default;

void BridgeFixture::Start() {
  processes_ = std::make_unique<Processes>();
  Processes& p = *processes_;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&p.service);
  p.grpc_server = builder.BuildAndStart();
  StartBridge("127.0.0.1:" + std::to_string(port));
}

void BridgeFixture::StartBridge(const std::string& target) {
  if (processes_ == nullptr) processes_ = std::make_unique<Processes>();
  Processes& p = *processes_;
  bridge_options.inference = target;
  p.policy = std::make_unique<bridge::HttpPolicy>(bridge_options);
  p.context = {bridge_options, ws_options, p.policy.get(), &p.bridge_metrics};
  auto server =
      bridge::Server::Create(bridge_options, &p.bridge_metrics, [&p](bridge::IoThread* thread, bridge::Socket socket) {
        AcceptConnection(&p.context, thread, std::move(socket));
      });
  ASSERT_TRUE(server.ok()) << server.status();
  p.server = std::move(*server);
  ASSERT_TRUE(testing::WaitUntil([&] { return p.server->threads().links_connected() == bridge_options.io_threads; }));
}

void BridgeFixture::Drain() { processes_->server->Drain(); }

WsClient::Options BridgeFixture::ClientOptions() const {
  WsClient::Options options;
  options.port = processes_->server->port();
  return options;
}

std::unique_ptr<WsClient> BridgeFixture::Connect(const std::string& protocols) {
  WsClient::Options options = ClientOptions();
  options.protocols = protocols;
  return Connect(options);
}

std::unique_ptr<WsClient> BridgeFixture::Connect(const WsClient::Options& options) {
  auto client = WsClient::Connect(options);
  EXPECT_TRUE(client.ok()) << client.status();
  if (!client.ok()) return nullptr;
  EXPECT_TRUE((*client)->Read().ok());
  return std::move(*client);
}

BridgeFixture::Json BridgeFixture::Read(WsClient* client) {
  const auto message = client->Read();
  EXPECT_TRUE(message.ok()) << message.status() << " close code " << client->close_code();
  if (!message.ok()) return nullptr;
  EXPECT_FALSE(message->binary);
  return Json::parse(message->bytes, nullptr, false);
}

BridgeFixture::Json BridgeFixture::ReadUntil(WsClient* client, const std::string& type) {
  for (;;) {
    Json message = Read(client);
    if (!message.is_object() || message["type"] == type) return message;
  }
}

void BridgeFixture::Send(WsClient* client, const Json& message) { EXPECT_TRUE(client->SendText(message.dump()).ok()); }

BridgeFixture::Json BridgeFixture::Generate(const std::string& req, uint64_t seed, int tokens, int tokens_per_second) {
  return {{"type", "generate"},
          {"req", req},
          {"body",
           {{"prompt", "p"},
            {"max_tokens", 1'000'000},
            {"seed", seed},
            {"metadata",
             {{"scripted.tokens", std::to_string(tokens)},
              {"scripted.tokens_per_second", std::to_string(tokens_per_second)},
              {"scripted.first_token_ms", "0"}}}}}};
}

BridgeFixture::Json BridgeFixture::Resume(const std::string& req, const std::string& gen, uint64_t after) {
  return {{"type", "resume"}, {"req", req}, {"gen", gen}, {"after", after}};
}

std::string BridgeFixture::Text(uint64_t seed, int tokens) {
  std::string text;
  for (int i = 0; i < tokens; ++i) text += inference::ScriptedToken(seed, 0, static_cast<uint32_t>(i));
  return text;
}

std::string BridgeFixture::ReadGeneration(WsClient* client, std::string* gen, uint64_t after, Json first) {
  std::string text;
  for (uint64_t last = after;;) {
    const Json event = first.is_null() ? Read(client) : std::exchange(first, Json());
    if (!event.is_object()) return text;
    const std::string type = event["type"];
    if (type == "attached") continue;
    if (gen->empty()) *gen = event.value("gen", "");
    EXPECT_EQ(event.value("gen", ""), *gen) << event;
    const uint64_t seq = event.value("seq", uint64_t{0});
    EXPECT_EQ(event.value("first_seq", seq), last + 1) << event;
    last = seq;
    if (type == "delta") text += event["text"];
    if (type == "failed") return text;
    if (type != "done") continue;
    EXPECT_EQ(event["events"], seq);
    if (after > 1) return text;
    EXPECT_EQ(event["choices"][0]["text_bytes"], text.size());
    char crc[9];
    std::snprintf(crc, sizeof crc, "%08lx", crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size()));
    EXPECT_EQ(event["choices"][0]["crc32"], crc);
    return text;
  }
}

std::string BridgeFixture::StatusOf(const std::string& gen) {
  grpc::ClientContext context;
  const auto stub = v1::InferenceService::NewStub(processes_->grpc_server->InProcessChannel({}));
  v1::GetGenerationRequest request;
  request.set_generation_id(gen);
  v1::GetGenerationResponse response;
  if (!stub->GetGeneration(&context, request, &response).ok()) return "";
  if (response.generation().has_done() && response.generation().done().choices_size() > 0 &&
      response.generation().done().choices(0).finish_reason() == v1::FINISH_REASON_CANCELLED) {
    return "cancelled";
  }
  return v1::GenerationStatus_Name(response.generation().status());
}

double BridgeFixture::Metric(const std::string& name) {
  const std::string text = processes_->metrics.Expose();
  std::smatch match;
  return std::regex_search(text, match, std::regex("(?:^|\n)" + name + R"((?:\{[^}]*\})? ([0-9.e+]+))"))
             ? std::stod(match[1])
             : -1;
}

size_t BridgeFixture::Connections() { return processes_->server->threads().connections(); }

size_t BridgeFixture::UnfinishedBytes() { return processes_->server->threads()[0].unfinished->used(); }

}  // namespace runnel::websocket
