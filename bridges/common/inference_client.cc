#include "bridges/common/inference_client.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <set>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "bridges/common/grpc_stub.h"
#include "services/base/grpc_status.h"
#include "services/base/mutex.h"

namespace runnel::bridge {
namespace {

std::unique_ptr<GrpcStub> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  // The Links have a backoff of their own; gRPC's, which doubles to two minutes, would hide a service that is back.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Bridges of one process, as in tests, must not share a connection through gRPC's pool.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto stub = std::make_unique<GrpcStub>();
  stub->channel = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  stub->stub = v1::InferenceService::NewStub(stub->channel);
  return stub;
}

}  // namespace

// The calls under way, so that the destructor can end them.
struct InferenceClient::Calls {
  base::Mutex mu;
  base::CondVar none;
  std::set<grpc::ClientContext*> live GUARDED_BY(mu);

  void Add(grpc::ClientContext* context) {
    base::MutexLock lock(&mu);
    live.insert(context);
  }
  void Remove(grpc::ClientContext* context) {
    base::MutexLock lock(&mu);
    live.erase(context);
    if (live.empty()) none.NotifyAll();
  }
};

namespace {

template <typename Response>
using Done = absl::AnyInvocable<void(absl::StatusOr<Response>)>;

template <typename Request, typename Response>
struct Call {
  grpc::ClientContext context;
  Request request;
  Response response;
};

// `method` is a member of the stub's async interface; `convert` makes the result of an OK response.
template <typename Result, typename Request, typename Response, typename Calls, typename Method, typename Convert>
void Begin(GrpcStub* stub, const std::shared_ptr<Calls>& calls, net::io_context* io, absl::Duration timeout,
           Request request, Method method, Convert convert, Done<Result> done) {
  auto call = std::make_shared<Call<Request, Response>>();
  call->request = std::move(request);
  call->context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  calls->Add(&call->context);
  // gRPC wants a handler that can be copied.
  auto shared_done = std::make_shared<Done<Result>>(std::move(done));
  (stub->stub->async()->*method)(
      &call->context, &call->request, &call->response,
      [call, calls, io, convert, shared_done](const grpc::Status& status) {
        // Not from an OK status, which a StatusOr refuses to be made of.
        auto result = status.ok() ? absl::StatusOr<Result>(convert(std::move(call->response)))
                                  : absl::StatusOr<Result>(base::FromGrpcStatus(status));
        net::post(*io, [shared_done, outcome = std::move(result)]() mutable { (*shared_done)(std::move(outcome)); });
        calls->Remove(&call->context);
      });
}

template <typename Message>
Message Same(Message message) {
  return message;
}

using Async = v1::InferenceService::StubInterface::async_interface;

}  // namespace

InferenceClient::InferenceClient(const std::string& target, absl::Duration rpc_timeout)
    : rpc_timeout_(rpc_timeout), stub_(Connect(target)), calls_(std::make_shared<Calls>()) {}

InferenceClient::~InferenceClient() {
  base::MutexLock lock(&calls_->mu);
  for (grpc::ClientContext* context : calls_->live) context->TryCancel();
  while (!calls_->live.empty()) calls_->none.Wait(&calls_->mu);
}

void InferenceClient::GetGeneration(net::io_context* io, std::string id, Callback<v1::Generation> done) {
  v1::GetGenerationRequest request;
  request.set_generation_id(std::move(id));
  using Method = void (Async::*)(grpc::ClientContext*, const v1::GetGenerationRequest*, v1::GetGenerationResponse*,
                                 std::function<void(grpc::Status)>);
  Begin<v1::Generation, v1::GetGenerationRequest, v1::GetGenerationResponse>(
      stub_.get(), calls_, io, rpc_timeout_, std::move(request), Method(&Async::GetGeneration),
      [](v1::GetGenerationResponse response) { return std::move(*response.mutable_generation()); }, std::move(done));
}

void InferenceClient::CancelGeneration(net::io_context* io, std::string id,
                                       Callback<v1::CancelGenerationResponse> done) {
  v1::CancelGenerationRequest request;
  request.set_generation_id(std::move(id));
  using Method = void (Async::*)(grpc::ClientContext*, const v1::CancelGenerationRequest*,
                                 v1::CancelGenerationResponse*, std::function<void(grpc::Status)>);
  Begin<v1::CancelGenerationResponse, v1::CancelGenerationRequest, v1::CancelGenerationResponse>(
      stub_.get(), calls_, io, rpc_timeout_, std::move(request), Method(&Async::CancelGeneration),
      Same<v1::CancelGenerationResponse>, std::move(done));
}

void InferenceClient::DeleteGeneration(net::io_context* io, std::string id,
                                       Callback<v1::DeleteGenerationResponse> done) {
  v1::DeleteGenerationRequest request;
  request.set_generation_id(std::move(id));
  using Method = void (Async::*)(grpc::ClientContext*, const v1::DeleteGenerationRequest*,
                                 v1::DeleteGenerationResponse*, std::function<void(grpc::Status)>);
  Begin<v1::DeleteGenerationResponse, v1::DeleteGenerationRequest, v1::DeleteGenerationResponse>(
      stub_.get(), calls_, io, rpc_timeout_, std::move(request), Method(&Async::DeleteGeneration),
      Same<v1::DeleteGenerationResponse>, std::move(done));
}

void InferenceClient::ListModels(net::io_context* io, Callback<v1::ListModelsResponse> done) {
  using Method = void (Async::*)(grpc::ClientContext*, const v1::ListModelsRequest*, v1::ListModelsResponse*,
                                 std::function<void(grpc::Status)>);
  Begin<v1::ListModelsResponse, v1::ListModelsRequest, v1::ListModelsResponse>(
      stub_.get(), calls_, io, rpc_timeout_, v1::ListModelsRequest(), Method(&Async::ListModels),
      Same<v1::ListModelsResponse>, std::move(done));
}

namespace {

// Turns a call with a callback into one that a coroutine can wait for.
template <typename Response, typename Start>
Awaitable<absl::StatusOr<Response>> Await(Start start) {
  return net::async_initiate<const net::use_awaitable_t<Executor>, void(absl::StatusOr<Response>)>(
      [start = std::move(start)](auto handler) mutable {
        // std::function must be copyable, and the handler is not.
        auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        start([shared](absl::StatusOr<Response> result) { (*shared)(std::move(result)); });
      },
      net::use_awaitable_t<Executor>());
}

}  // namespace

Awaitable<absl::StatusOr<v1::Generation>> InferenceClient::GetGeneration(net::io_context* io, std::string id) {
  return Await<v1::Generation>(
      [this, io, id = std::move(id)](auto done) { GetGeneration(io, id, Callback<v1::Generation>(std::move(done))); });
}

Awaitable<absl::StatusOr<v1::CancelGenerationResponse>> InferenceClient::CancelGeneration(net::io_context* io,
                                                                                         std::string id) {
  return Await<v1::CancelGenerationResponse>([this, io, id = std::move(id)](auto done) {
    CancelGeneration(io, id, Callback<v1::CancelGenerationResponse>(std::move(done)));
  });
}

Awaitable<absl::StatusOr<v1::DeleteGenerationResponse>> InferenceClient::DeleteGeneration(net::io_context* io,
                                                                                         std::string id) {
  return Await<v1::DeleteGenerationResponse>([this, io, id = std::move(id)](auto done) {
    DeleteGeneration(io, id, Callback<v1::DeleteGenerationResponse>(std::move(done)));
  });
}

Awaitable<absl::StatusOr<v1::ListModelsResponse>> InferenceClient::ListModels(net::io_context* io) {
  return Await<v1::ListModelsResponse>(
      [this, io](auto done) { ListModels(io, Callback<v1::ListModelsResponse>(std::move(done))); });
}

}  // namespace runnel::bridge
