#include "bridges/common/inference_client.h"

#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <set>
#include <type_traits>
#include <utility>

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
  std::set<grpc::ClientContext*> live GUARDED_BY(mu);  // may be cancelled
  size_t count GUARDED_BY(mu) = 0;                      // not destroyed yet

  void Add(grpc::ClientContext* context) {
    base::MutexLock lock(&mu);
    live.insert(context);
    ++count;
  }
  void Remove(grpc::ClientContext* context) {
    base::MutexLock lock(&mu);
    live.erase(context);
  }
  void CountDestroyed() {
    base::MutexLock lock(&mu);
    if (--count == 0) none.NotifyAll();
  }
};

namespace {

template <typename Result>
using Done = std::function<void(absl::StatusOr<Result>)>;

// One call. `Convert` makes the result of an OK response. Owns itself from Start to OnDone.
template <typename Result, typename Request, typename Response, typename Calls>
class UnaryCall final : public grpc::ClientUnaryReactor {
 public:
  using Convert = Result (*)(Response response);

  UnaryCall(std::shared_ptr<Calls> calls, net::io_context* io, Request request, Convert convert, Done<Result> done)
      : calls_(std::move(calls)), io_(io), convert_(convert), request_(std::move(request)), done_(std::move(done)) {}

  template <typename Method>
  void Start(GrpcStub* stub, absl::Duration timeout, Method method) {
    context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
    (stub->stub->async()->*method)(&context_, &request_, &response_, this);
    {
      base::MutexLock lock(&mu_);
      calls_->Add(&context_);
    }
    StartCall();
  }

  void OnDone(const grpc::Status& status) override {
    // What gRPC's own locks order after Start, ThreadSanitizer cannot see.
    { base::MutexLock lock(&mu_); }
    const std::shared_ptr<Calls> calls = calls_;
    calls->Remove(&context_);
    absl::StatusOr<Result> result = Outcome(status);
    net::post(*io_, [done = std::move(done_), outcome = std::move(result)]() mutable { done(std::move(outcome)); });
    // The context holds the channel, which must be let go of last by who destroys the client and waits for the count.
    delete this;
    calls->CountDestroyed();
  }

 private:
  absl::StatusOr<Result> Outcome(const grpc::Status& status) {
    if (!status.ok()) return base::FromGrpcStatus(status);
    return convert_(std::move(response_));
  }

  base::Mutex mu_;
  const std::shared_ptr<Calls> calls_;
  net::io_context* const io_;
  const Convert convert_;
  grpc::ClientContext context_;
  Request request_;
  Response response_;
  Done<Result> done_;
};

template <typename Result, typename Request, typename Response, typename Calls>
void Begin(GrpcStub* stub, const std::shared_ptr<Calls>& calls, net::io_context* io, absl::Duration timeout,
           Request request, Result (*convert)(Response), Done<Result> done) {
  using Async = v1::InferenceService::StubInterface::async_interface;
  using Method = void (Async::*)(grpc::ClientContext*, const Request*, Response*, grpc::ClientUnaryReactor*);
  auto* call = new UnaryCall<Result, Request, Response, Calls>(calls, io, std::move(request), convert, std::move(done));
  if constexpr (std::is_same_v<Request, v1::GetGenerationRequest>) {
    call->Start(stub, timeout, Method(&Async::GetGeneration));
  } else if constexpr (std::is_same_v<Request, v1::CancelGenerationRequest>) {
    call->Start(stub, timeout, Method(&Async::CancelGeneration));
  } else if constexpr (std::is_same_v<Request, v1::DeleteGenerationRequest>) {
    call->Start(stub, timeout, Method(&Async::DeleteGeneration));
  } else {
    call->Start(stub, timeout, Method(&Async::ListModels));
  }
}

template <typename Message>
Message Same(Message message) {
  return message;
}

v1::Generation TakeGeneration(v1::GetGenerationResponse response) { return std::move(*response.mutable_generation()); }

template <typename Request>
Request ById(std::string id) {
  Request request;
  request.set_generation_id(std::move(id));
  return request;
}

}  // namespace

InferenceClient::InferenceClient(const std::string& target, absl::Duration rpc_timeout)
    : rpc_timeout_(rpc_timeout), stub_(Connect(target)), calls_(std::make_shared<Calls>()) {}

InferenceClient::~InferenceClient() {
  base::MutexLock lock(&calls_->mu);
  for (grpc::ClientContext* context : calls_->live) context->TryCancel();
  while (calls_->count > 0) calls_->none.Wait(&calls_->mu);
}

void InferenceClient::GetGeneration(net::io_context* io, std::string id, Callback<v1::Generation> done) {
  Begin(stub_.get(), calls_, io, rpc_timeout_, ById<v1::GetGenerationRequest>(std::move(id)), &TakeGeneration,
        std::move(done));
}

void InferenceClient::CancelGeneration(net::io_context* io, std::string id,
                                       Callback<v1::CancelGenerationResponse> done) {
  Begin(stub_.get(), calls_, io, rpc_timeout_, ById<v1::CancelGenerationRequest>(std::move(id)),
        &Same<v1::CancelGenerationResponse>, std::move(done));
}

void InferenceClient::DeleteGeneration(net::io_context* io, std::string id,
                                       Callback<v1::DeleteGenerationResponse> done) {
  Begin(stub_.get(), calls_, io, rpc_timeout_, ById<v1::DeleteGenerationRequest>(std::move(id)),
        &Same<v1::DeleteGenerationResponse>, std::move(done));
}

void InferenceClient::ListModels(net::io_context* io, Callback<v1::ListModelsResponse> done) {
  Begin(stub_.get(), calls_, io, rpc_timeout_, v1::ListModelsRequest(), &Same<v1::ListModelsResponse>,
        std::move(done));
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
