#include "bridges/server/inference_client.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <future>
#include <string>

#include "bridges/link/replica_router.h"
#include "services/base/grpc_status.h"
#include "tests/unit/bridges/link/link_harness.h"

namespace runnel::bridge {
namespace {

const std::string kGen = FakeId('a');

template <typename Response>
using Result = absl::StatusOr<Response>;

// Runs `begin` on the io thread and waits for the result that its callback receives.
template <typename Response, typename Begin>
Result<Response> Await(LinkHarness* harness, Begin begin) {
  std::promise<Result<Response>> promise;
  harness->Run([&] { begin([&promise](Result<Response> result) { promise.set_value(std::move(result)); }); });
  return promise.get_future().get();
}

TEST(InferenceClient, CallsBackOnTheThreadWithTheResultOrTheStatus) {
  LinkHarness harness;
  ASSERT_TRUE(harness.Connected());
  testing::FakeInferenceService::Handlers handlers;
  handlers.cancel = [](const std::string& id) -> absl::StatusOr<v1::CancelGenerationResponse> {
    if (id != kGen) return absl::NotFoundError("no");
    v1::CancelGenerationResponse response;
    response.set_last_seq(4);
    return response;
  };
  harness.service.SetHandlers(handlers);
  std::promise<uint64_t> last_seq;
  std::promise<absl::StatusCode> code;
  harness.Run([&] {
    harness.client.CancelGeneration(&harness.thread(), kGen, "ann",
                                    [&](absl::StatusOr<v1::CancelGenerationResponse> result) {
                                      last_seq.set_value(result.ok() ? result->last_seq() : 0);
                                    });
    harness.client.CancelGeneration(
        &harness.thread(), "x", "ann",
        [&](absl::StatusOr<v1::CancelGenerationResponse> result) { code.set_value(result.status().code()); });
  });
  EXPECT_EQ(last_seq.get_future().get(), 4u);
  EXPECT_EQ(code.get_future().get(), absl::StatusCode::kNotFound);
}

TEST(InferenceClient, GetsAGeneration) {
  LinkHarness harness;
  ASSERT_TRUE(harness.Connected());
  FakeInferenceService::Handlers handlers;
  handlers.get = [](const std::string& id) -> Result<v1::Generation> {
    v1::Generation generation;
    generation.set_id(id);
    generation.set_last_seq(9);
    return generation;
  };
  harness.service.SetHandlers(handlers);
  const auto result = Await<v1::Generation>(&harness, [&](InferenceClient::Callback<v1::Generation> done) {
    harness.client.GetGeneration(&harness.thread(), kGen, "ann", 0, std::move(done));
  });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->id(), kGen);
  EXPECT_EQ(result->last_seq(), 9u);
}

TEST(InferenceClient, DeletesAGeneration) {
  LinkHarness harness;
  ASSERT_TRUE(harness.Connected());
  std::string deleted;
  FakeInferenceService::Handlers handlers;
  handlers.remove = [&](const std::string& id) {
    deleted = id;
    return absl::OkStatus();
  };
  harness.service.SetHandlers(handlers);
  const auto result =
      Await<v1::DeleteGenerationResponse>(&harness, [&](InferenceClient::Callback<v1::DeleteGenerationResponse> done) {
        harness.client.DeleteGeneration(&harness.thread(), kGen, "ann", std::move(done));
      });
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(deleted, kGen);
}

TEST(InferenceClient, ResumesACoroutineWithTheResult) {
  LinkHarness harness;
  ASSERT_TRUE(harness.Connected());
  FakeInferenceService::Handlers handlers;
  handlers.list_models = []() -> Result<v1::ListModelsResponse> {
    v1::ListModelsResponse response;
    response.add_models();
    return response;
  };
  harness.service.SetHandlers(handlers);
  std::promise<Result<v1::ListModelsResponse>> promise;
  const auto list = [](LinkHarness* with, std::promise<Result<v1::ListModelsResponse>>* done) -> Awaitable<void> {
    done->set_value(co_await with->client.ListModels(&with->thread()));
  };
  net::co_spawn(harness.thread().io.get_executor(), list(&harness, &promise), net::detached);
  const auto result = promise.get_future().get();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->models_size(), 1);
}

TEST(InferenceClient, ReportsAnUnreachableServiceWithARetryableReason) {
  LinkHarness harness;
  ASSERT_TRUE(harness.Connected());
  harness.service.Stop();
  ASSERT_TRUE(testing::WaitUntil([&] { return harness.thread().router.connected() == 0; }));
  const auto result =
      Await<v1::ListModelsResponse>(&harness, [&](InferenceClient::Callback<v1::ListModelsResponse> done) {
        harness.client.ListModels(&harness.thread(), std::move(done));
      });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(base::DetailOf(result.status()).reason, "SERVICE_UNREACHABLE");
}

TEST(InferenceClient, ACallWaitsUntilTheReplicaIsConnected) {
  FakeInferenceService::Options silent;
  silent.greet = false;
  LinkHarness harness(LinkHarness::QuickOptions(), silent);
  FakeInferenceService::Handlers handlers;
  handlers.list_models = []() -> Result<v1::ListModelsResponse> { return v1::ListModelsResponse(); };
  harness.service.SetHandlers(handlers);
  ASSERT_TRUE(harness.service.WaitForLinksOpened(1));
  std::promise<absl::Status> promise;
  std::future<absl::Status> status = promise.get_future();
  harness.Run(
      [&] { harness.client.ListModels(&harness.thread(), [&](auto result) { promise.set_value(result.status()); }); });
  harness.Run([] {});
  EXPECT_EQ(status.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  v1::LinkResponse hello;
  hello.mutable_hello()->set_max_attachments(10);
  harness.service.Send(0, hello);
  EXPECT_TRUE(status.get().ok());
}

TEST(InferenceClient, ACallEndsWithinTheOpenTimeoutIfNoReplicaConnects) {
  BridgeOptions options = LinkHarness::QuickOptions();
  options.open_timeout = absl::Milliseconds(30);
  FakeInferenceService::Options silent;
  silent.greet = false;
  LinkHarness harness(options, silent);
  const auto result =
      Await<v1::ListModelsResponse>(&harness, [&](InferenceClient::Callback<v1::ListModelsResponse> done) {
        harness.client.ListModels(&harness.thread(), std::move(done));
      });
  EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
}

TEST(InferenceClient, ShutdownCancelsPendingCalls) {
  LinkHarness harness;
  ASSERT_TRUE(harness.Connected());
  std::promise<void> entered;
  std::promise<void> release;
  FakeInferenceService::Handlers handlers;
  handlers.list_models = [&]() -> Result<v1::ListModelsResponse> {
    entered.set_value();
    release.get_future().wait();
    return v1::ListModelsResponse();
  };
  harness.service.SetHandlers(handlers);
  std::promise<absl::Status> status;
  harness.Run(
      [&] { harness.client.ListModels(&harness.thread(), [&](auto result) { status.set_value(result.status()); }); });
  entered.get_future().wait();
  harness.client.Shutdown();
  EXPECT_EQ(status.get_future().get().code(), absl::StatusCode::kCancelled);
  release.set_value();
}

}  // namespace
}  // namespace runnel::bridge
