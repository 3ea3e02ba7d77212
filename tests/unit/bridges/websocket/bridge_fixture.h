#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bridges/websocket/ws_context.h"
#include "tests/testing/ws_client.h"

namespace runnel::websocket {

// A WebSocket bridge and an inference service with the scripted engine, both in this process, joined by gRPC.
class BridgeFixture : public ::testing::Test {
 protected:
  using Json = nlohmann::ordered_json;

  BridgeFixture();
  ~BridgeFixture() override;

  // Starts both with `bridge_options` and `ws_options`, as the test has set them before.
  void Start();
  // The same, but with the inference service at `target` instead of one with the scripted engine.
  void StartBridge(const std::string& target);
  // SIGTERM's part of main; returns when the bridge has stopped.
  void Drain();

  testing::WsClient::Options ClientOptions() const;
  // Connects, or fails the test, and reads `hello`.
  std::unique_ptr<testing::WsClient> Connect(const std::string& protocols = "runnel.v1");
  std::unique_ptr<testing::WsClient> Connect(const testing::WsClient::Options& options);

  // The next message as JSON; null, with a failed test, if there is none.
  static Json Read(testing::WsClient* client);
  // Reads until one has `type`, and gives it.
  static Json ReadUntil(testing::WsClient* client, const std::string& type);
  static void Send(testing::WsClient* client, const Json& message);

  // A `generate` of `tokens` tokens at a pace.
  static Json Generate(const std::string& req, uint64_t seed, int tokens, int tokens_per_second = 1'000'000);
  static Json Resume(const std::string& req, const std::string& gen, uint64_t after);
  // What the scripted engine says.
  static std::string Text(uint64_t seed, int tokens);
  // Reads one generation from after `after` to its end, checks order, wholeness and digest, and gives its text. Other
  // generations' events fail the test. `first` is an event read before.
  static std::string ReadGeneration(testing::WsClient* client, std::string* gen, uint64_t after = 0,
                                    Json first = nullptr);

  // The state of a generation as the service has it, by its JSON status name; empty if it knows none.
  std::string StatusOf(const std::string& gen);
  double Metric(const std::string& name);
  // Of all messages that are not complete, beyond what an idle connection has.
  size_t UnfinishedBytes();
  // Open connections.
  size_t Connections();

  bridge::BridgeOptions bridge_options;
  WsOptions ws_options;

 private:
  struct Processes;
  std::unique_ptr<Processes> processes_;
};

}  // namespace runnel::websocket
