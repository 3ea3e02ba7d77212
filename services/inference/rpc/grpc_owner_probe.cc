#include "services/inference/rpc/grpc_owner_probe.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/match.h"

namespace runnel::inference {
namespace {

OwnerProbe::Answer AnswerOf(const grpc::Status& status) {
  if (status.ok()) return OwnerProbe::Answer::kHas;
  // Of another principal's generation too, which cannot be: the id and the principal come from the store.
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return OwnerProbe::Answer::kHasNot;
  // gRPC has no code of its own for it.
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE &&
      absl::StrContains(status.error_message(), "Connection refused")) {
    return OwnerProbe::Answer::kRefused;
  }
  return OwnerProbe::Answer::kSilent;
}

grpc::ChannelArguments ArgumentsOfChannels() {
  grpc::ChannelArguments arguments;
  // A refused connection must not be the answer for longer than the next question takes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

}  // namespace

struct GrpcOwnerProbe::Call {
  grpc::ClientContext context;
  v1::GetGenerationRequest request;
  v1::GetGenerationResponse response;
  std::shared_ptr<v1::InferenceService::Stub> stub;
  AnswerCallback done;
};

GrpcOwnerProbe::~GrpcOwnerProbe() { Stop(); }

void GrpcOwnerProbe::Ask(Question question, AnswerCallback done) {
  const auto call = std::make_shared<Call>();
  call->request.set_generation_id(std::move(question.generation_id));
  call->request.set_principal(std::move(question.principal));
  call->request.set_max_text_bytes(0);
  call->context.AddMetadata(kProbeMetadata, "1");
  call->context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(options_.timeout));
  {
    base::MutexLock lock(&mu_);
    if (!stopped_) {
      call->done = std::move(done);
      call->stub = StubLocked(question.address);
      calls_.insert(call);
    }
  }
  if (call->stub == nullptr) return done(Answer::kSilent);
  call->stub->async()->GetGeneration(&call->context, &call->request, &call->response,
                                     [this, call](const grpc::Status& status) { OnReply(call, status); });
}

void GrpcOwnerProbe::OnReply(const std::shared_ptr<Call>& call, const grpc::Status& status) {
  call->done(AnswerOf(status));
  base::MutexLock lock(&mu_);
  calls_.erase(call);
  if (calls_.empty()) idle_.NotifyAll();
}

std::shared_ptr<v1::InferenceService::Stub> GrpcOwnerProbe::StubLocked(const std::string& address) {
  const auto found =
      std::find_if(replicas_.begin(), replicas_.end(), [&](const Replica& each) { return each.address == address; });
  if (found != replicas_.end()) {
    replicas_.splice(replicas_.begin(), replicas_, found);
  } else {
    auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), ArgumentsOfChannels());
    replicas_.push_front({address, v1::InferenceService::NewStub(channel)});
    if (replicas_.size() > options_.max_channels) replicas_.pop_back();
  }
  return replicas_.front().stub;
}

void GrpcOwnerProbe::Stop() {
  std::vector<std::shared_ptr<Call>> calls;
  {
    base::MutexLock lock(&mu_);
    stopped_ = true;
    calls.assign(calls_.begin(), calls_.end());
  }
  // Without the lock: the callbacks may run within this.
  for (const std::shared_ptr<Call>& call : calls) call->context.TryCancel();
  base::MutexLock lock(&mu_);
  while (!calls_.empty()) idle_.Wait(&mu_);
}

size_t GrpcOwnerProbe::channels() const {
  base::MutexLock lock(&mu_);
  return replicas_.size();
}

}  // namespace runnel::inference
