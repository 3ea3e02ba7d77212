#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "runnel/v1/inference.grpc.pb.h"
#include "services/inference/generation/engine.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/rpc/inference_service.h"

namespace runnel::inference {

// The service over a real gRPC channel, with any engine.
class ServiceHarness {
 public:
  // `engine` must outlive the harness.
  explicit ServiceHarness(Engine* engine, LinkOptions link = {}, GenerationManager::Options manager_options = {})
      : engine_(engine), manager(engine, &metrics, manager_options), service_(&manager, &live, std::move(link)) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub = v1::InferenceService::NewStub(server_->InProcessChannel(grpc::ChannelArguments()));
  }
  ~ServiceHarness() {
    engine_->Stop();
    manager.Stop();
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    EXPECT_TRUE(live.WaitUntilNone(absl::Seconds(10)));
  }

 private:
  Engine* const engine_;

 public:
  base::Metrics metrics;
  LiveCalls live;
  GenerationManager manager;

 private:
  InferenceService service_;
  std::unique_ptr<grpc::Server> server_;

 public:
  std::unique_ptr<v1::InferenceService::Stub> stub;
};

// The client's end of one Link. Ends it when it is destroyed.
class LinkClient {
 public:
  explicit LinkClient(v1::InferenceService::Stub* stub) : stream(stub->Link(&context)) {
    v1::LinkResponse response;
    EXPECT_TRUE(stream->Read(&response));
    EXPECT_TRUE(response.has_hello());
    hello = response.hello();
  }
  ~LinkClient() {
    context.TryCancel();
    Finish();
  }

  // Reads to the end. Returns OK if called again.
  grpc::Status Finish() {
    if (std::exchange(finished_, true)) return grpc::Status::OK;
    v1::LinkResponse response;
    while (stream->Read(&response)) {
    }
    return stream->Finish();
  }

  void Generate(uint32_t attachment, const v1::GenerateRequest& request) {
    v1::LinkRequest command;
    command.mutable_generate()->set_attachment(attachment);
    *command.mutable_generate()->mutable_request() = request;
    EXPECT_TRUE(stream->Write(command));
  }
  void Attach(uint32_t attachment, const std::string& id, uint64_t after) {
    v1::LinkRequest command;
    command.mutable_attach()->set_attachment(attachment);
    command.mutable_attach()->set_generation_id(id);
    command.mutable_attach()->set_after_seq(after);
    EXPECT_TRUE(stream->Write(command));
  }
  void Detach(uint32_t attachment) {
    v1::LinkRequest command;
    command.mutable_detach()->set_attachment(attachment);
    EXPECT_TRUE(stream->Write(command));
  }
  // Reads until `done` is true, and calls the callbacks for each reply and event.
  template <typename OnReply, typename OnEvent>
  void ReadUntil(const std::function<bool()>& done, OnReply on_reply, OnEvent on_event) {
    v1::LinkResponse response;
    while (!done() && stream->Read(&response)) {
      for (const auto& reply : response.replies()) on_reply(reply);
      for (const auto& event : response.events()) on_event(event);
    }
    EXPECT_TRUE(done());
  }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::LinkRequest, v1::LinkResponse>> stream;
  v1::LinkHello hello;

 private:
  bool finished_ = false;
};

}  // namespace runnel::inference
