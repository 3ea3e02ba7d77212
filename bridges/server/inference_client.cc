#include "bridges/server/inference_client.h"

#include <algorithm>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <set>
#include <utility>

#include "bridges/link/grpc_stub.h"
#include "bridges/link/link_errors.h"
#include "bridges/link/replica_router.h"
#include "bridges/server/io_threads.h"
#include "services/base/grpc_status.h"
#include "services/base/mutex.h"

namespace runnel::bridge {

// The pending calls, so that Shutdown can end them.
struct InferenceClient::Calls {
  base::Mutex mu;
  base::CondVar none;
  std::set<grpc::ClientContext*> live GUARDED_BY(mu);
  bool shut_down GUARDED_BY(mu) = false;

  // False after Shutdown.
  bool Add(grpc::ClientContext* context) {
    base::MutexLock lock(&mu);
    if (!shut_down) live.insert(context);
    return !shut_down;
  }
  void Remove(grpc::ClientContext* context) {
    base::MutexLock lock(&mu);
    live.erase(context);
    if (live.empty()) none.NotifyAll();
  }
};

namespace {

using Stub = v1::InferenceService::Stub;

template <typename Request, typename Response>
using Method = std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> (Stub::*)(grpc::ClientContext*,
                                                                                    const Request&,
                                                                                    grpc::CompletionQueue*);

// Each refusal of the service has a reason; an error of gRPC, which could not reach the service, has none.
absl::Status WithReason(absl::Status status) {
  return absl::IsUnavailable(status) && base::DetailOf(status).reason.empty() ? ReplicaUnreachable() : status;
}

// One call. From Start to OnComplete it owns itself; then the io thread
// destroys it, because it holds the channel, which the poller must not release last.
template <typename Request, typename Response, typename Calls>
class UnaryCall final : public GrpcTag {
 public:
  using Done = std::function<void(absl::StatusOr<Response>)>;

  UnaryCall(std::shared_ptr<Calls> calls, net::io_context* io, const Request& request, Done done)
      : calls_(std::move(calls)), io_(io), request_(request), done_(std::move(done)) {}

  void Start(std::shared_ptr<GrpcStub> stub, absl::Duration timeout, Method<Request, Response> method) {
    if (!calls_->Add(&context_)) {
      delete this;
      return;
    }
    stub_ = std::move(stub);
    context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
    stub_->poller->Publish();
    // OnComplete takes the lock too, so the call is not destroyed before Start has returned, however soon it is over.
    base::MutexLock lock(&mu_);
    call_ = (stub_->stub.get()->*method)(&context_, request_, stub_->poller->queue());
    call_->Finish(&response_, &status_, this);
  }

  void OnComplete(bool) override {
    { base::MutexLock lock(&mu_); }
    const std::shared_ptr<Calls> calls = calls_;
    grpc::ClientContext* const context = &context_;
    net::post(*io_, [self = std::unique_ptr<UnaryCall>(this)] { self->Finish(); });
    calls->Remove(context);
  }

 private:
  void Finish() {
    if (!status_.ok()) return done_(WithReason(base::FromGrpcStatus(status_)));
    done_(std::move(response_));
  }

  base::Mutex mu_;
  const std::shared_ptr<Calls> calls_;
  net::io_context* const io_;
  std::shared_ptr<GrpcStub> stub_;
  grpc::ClientContext context_;
  Request request_;
  Response response_;
  grpc::Status status_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> call_;
  const Done done_;
};

// Locates the replica and calls it, again if that refers to another one. `convert` turns the reply into the result.
// Shared by the call or the Locate in progress.
template <typename Result, typename Request, typename Response, typename Calls>
struct Errand : std::enable_shared_from_this<Errand<Result, Request, Response, Calls>> {
  IoThread* thread;
  std::shared_ptr<Calls> calls;
  absl::Duration timeout;
  absl::Duration shared_timeout;  // of a call to a replica whose generations another one can continue
  Request request;
  Method<Request, Response> method;
  Result (*convert)(Response response);
  InferenceClient::Callback<Result> done;
  std::shared_ptr<Search> search;

  void Locate() {
    thread->router.Locate(search, [self = this->shared_from_this()](absl::StatusOr<Located> located) {
      located.ok() ? self->Call(*std::move(located)) : self->done(located.status());
    });
  }
  void Call(Located located) {
    auto* call = new UnaryCall<Request, Response, Calls>(
        calls, &thread->io, request, [self = this->shared_from_this(), located](absl::StatusOr<Response> response) {
          if (response.ok()) return self->done(self->convert(*std::move(response)));
          if (self->thread->router.MayRepeat(located, response.status(), &*self->search)) return self->Locate();
          self->done(response.status());
        });
    call->Start(std::move(located.stub), located.shared_log ? std::min(timeout, shared_timeout) : timeout, method);
  }
};

template <typename Result, typename Request, typename Response, typename Calls>
void Begin(IoThread* thread, const std::string& id, std::shared_ptr<Calls> calls, absl::Duration timeout,
           Request request, Method<Request, Response> method, Result (*convert)(Response),
           InferenceClient::Callback<Result> done) {
  auto errand = std::make_shared<Errand<Result, Request, Response, Calls>>();
  errand->thread = thread;
  errand->calls = std::move(calls);
  errand->timeout = timeout;
  errand->shared_timeout = id.empty() ? timeout : thread->router.open_timeout() / 2;
  errand->request = std::move(request);
  errand->method = method;
  errand->convert = convert;
  errand->done = std::move(done);
  errand->search = thread->router.NewSearch(id);
  errand->Locate();
}

template <typename Message>
Message Same(Message message) {
  return message;
}

v1::Generation TakeGeneration(v1::GetGenerationResponse response) { return std::move(*response.mutable_generation()); }

template <typename Request>
Request ById(const std::string& id, std::string principal) {
  Request request;
  request.set_generation_id(id);
  request.set_principal(std::move(principal));
  return request;
}

}  // namespace

InferenceClient::InferenceClient(absl::Duration rpc_timeout)
    : rpc_timeout_(rpc_timeout), calls_(std::make_shared<Calls>()) {}

InferenceClient::~InferenceClient() { Shutdown(); }

void InferenceClient::Shutdown() {
  base::MutexLock lock(&calls_->mu);
  calls_->shut_down = true;
  for (grpc::ClientContext* context : calls_->live) context->TryCancel();
  while (!calls_->live.empty()) calls_->none.Wait(&calls_->mu);
}

void InferenceClient::GetGeneration(IoThread* thread, std::string id, std::string principal, uint64_t max_text_bytes,
                                    Callback<v1::Generation> done) {
  auto request = ById<v1::GetGenerationRequest>(id, std::move(principal));
  request.set_max_text_bytes(max_text_bytes);
  Begin(thread, id, calls_, rpc_timeout_, std::move(request),
        Method<v1::GetGenerationRequest, v1::GetGenerationResponse>(&Stub::AsyncGetGeneration), &TakeGeneration,
        std::move(done));
}

void InferenceClient::CancelGeneration(IoThread* thread, std::string id, std::string principal,
                                       Callback<v1::CancelGenerationResponse> done) {
  Begin(thread, id, calls_, rpc_timeout_, ById<v1::CancelGenerationRequest>(id, std::move(principal)),
        Method<v1::CancelGenerationRequest, v1::CancelGenerationResponse>(&Stub::AsyncCancelGeneration),
        &Same<v1::CancelGenerationResponse>, std::move(done));
}

void InferenceClient::DeleteGeneration(IoThread* thread, std::string id, std::string principal,
                                       Callback<v1::DeleteGenerationResponse> done) {
  Begin(thread, id, calls_, rpc_timeout_, ById<v1::DeleteGenerationRequest>(id, std::move(principal)),
        Method<v1::DeleteGenerationRequest, v1::DeleteGenerationResponse>(&Stub::AsyncDeleteGeneration),
        &Same<v1::DeleteGenerationResponse>, std::move(done));
}

void InferenceClient::ListModels(IoThread* thread, Callback<v1::ListModelsResponse> done) {
  Begin(thread, "", calls_, rpc_timeout_, v1::ListModelsRequest(),
        Method<v1::ListModelsRequest, v1::ListModelsResponse>(&Stub::AsyncListModels), &Same<v1::ListModelsResponse>,
        std::move(done));
}

namespace {

// Turns a call with a callback into one that a coroutine can await.
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

Awaitable<absl::StatusOr<v1::Generation>> InferenceClient::GetGeneration(IoThread* thread, std::string id,
                                                                         std::string principal,
                                                                         uint64_t max_text_bytes) {
  return Await<v1::Generation>([=, this](auto done) {
    GetGeneration(thread, id, principal, max_text_bytes, Callback<v1::Generation>(std::move(done)));
  });
}

Awaitable<absl::StatusOr<v1::GetGenerationResponse>> InferenceClient::GetWithInput(IoThread* thread, std::string id,
                                                                                   std::string principal,
                                                                                   uint64_t max_text_bytes,
                                                                                   uint64_t input_offset) {
  return Await<v1::GetGenerationResponse>([=, this](auto done) {
    auto request = ById<v1::GetGenerationRequest>(id, principal);
    request.set_max_text_bytes(max_text_bytes);
    request.set_input_offset(input_offset);
    Begin(thread, id, calls_, rpc_timeout_, std::move(request),
          Method<v1::GetGenerationRequest, v1::GetGenerationResponse>(&Stub::AsyncGetGeneration),
          &Same<v1::GetGenerationResponse>, Callback<v1::GetGenerationResponse>(std::move(done)));
  });
}

Awaitable<absl::StatusOr<v1::CancelGenerationResponse>> InferenceClient::CancelGeneration(IoThread* thread,
                                                                                          std::string id,
                                                                                          std::string principal) {
  return Await<v1::CancelGenerationResponse>([=, this](auto done) {
    CancelGeneration(thread, id, principal, Callback<v1::CancelGenerationResponse>(std::move(done)));
  });
}

Awaitable<absl::StatusOr<v1::DeleteGenerationResponse>> InferenceClient::DeleteGeneration(IoThread* thread,
                                                                                          std::string id,
                                                                                          std::string principal) {
  return Await<v1::DeleteGenerationResponse>([=, this](auto done) {
    DeleteGeneration(thread, id, principal, Callback<v1::DeleteGenerationResponse>(std::move(done)));
  });
}

Awaitable<absl::StatusOr<v1::ListModelsResponse>> InferenceClient::ListModels(IoThread* thread) {
  return Await<v1::ListModelsResponse>(
      [=, this](auto done) { ListModels(thread, Callback<v1::ListModelsResponse>(std::move(done))); });
}

}  // namespace runnel::bridge
