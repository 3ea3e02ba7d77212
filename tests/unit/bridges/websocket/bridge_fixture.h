#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bridges/websocket/ws_context.h"
#include "tests/testing/ws_client.h"

namespace runnel::websocket {

// A WebSocket bridge and an inference service with the scripted engine, both in this process, connected by gRPC.
class BridgeFixture : public ::testing::Test {
 protected:
  using Json = nlohmann::ordered_json;

  BridgeFixture();
  ~BridgeFixture() override;

  // Starts both with `bridge_options` and `ws_options`, which the test may change before.
  void Start();
  // The same, but with the inference service at `target` instead of one with the scripted engine.
  void StartBridge(const std::string& target);
  // What main does at SIGTERM; returns when the bridge has stopped.
  void Drain();

  testing::WsClient::Options ClientOptions() const;
  // Connects, or fails the test, and reads `hello`.
  std::unique_ptr<testing::WsClient> Connect(const std::string& protocols = "runnel.v1");
  std::unique_ptr<testing::WsClient> Connect(const testing::WsClient::Options& options);

  // The next message as JSON; null, with a failed test, if there is none.
  static Json Read(testing::WsClient* client);
  // Reads until a message of type `type` and returns it.
  static Json ReadUntil(testing::WsClient* client, const std::string& type);
  static void Send(testing::WsClient* client, const Json& message);

  // A `generate` of `tokens` tokens.
  static Json Generate(const std::string& req, uint64_t seed, int tokens, int tokens_per_second = 1'000'000);
  static Json Resume(const std::string& req, const std::string& gen, uint64_t after);
  // The text of the scripted engine.
  static std::string Text(uint64_t seed, int tokens);
  // Reads one generation from after `after` to its end, checks order, completeness and digest, and returns its text. An
  // event of another generation fails the test. `first` is an event that was read before.
  static std::string ReadGeneration(testing::WsClient* client, std::string* gen, uint64_t after = 0,
                                    Json first = nullptr);

  // The status of a generation in the service, by its JSON name; empty if the service does not know the generation.
  std::string StatusOf(const std::string& gen);
  double Metric(const std::string& name);
  // Bytes of all unfinished messages, not counting the buffers of idle connections.
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
