#include "services/inference/inference_service.h"

#include <utility>

#include "services/base/grpc_status.h"
#include "services/base/status_macros.h"
#include "services/inference/stream_reactor.h"

namespace runnel::inference {
namespace {

// A streaming call that fails before its first event. Without initial metadata, so that a client may retry it.
template <typename Response>
class RefusedStream final : public grpc::ServerWriteReactor<Response> {
 public:
  explicit RefusedStream(const absl::Status& status) { this->Finish(base::ToGrpcStatus(status)); }
  void OnDone() override { delete this; }
};

grpc::ServerUnaryReactor* FinishUnary(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(base::ToGrpcStatus(status));
  return reactor;
}

}  // namespace

InferenceService::InferenceService(GenerationManager* manager, LiveStreams* live, LinkOptions options)
    : manager_(manager), live_(live), options_(std::move(options)) {}

absl::StatusOr<GenerationManager::Started> InferenceService::StartGeneration(const v1::GenerateRequest& request) {
  ASSIGN_OR_RETURN(const GenerationRequest checked,
                   RequestFromProto(request, options_.defaults, manager_->Models()));
  return manager_->Start(checked, RequestFingerprint(request));
}

absl::StatusOr<GenerationManager::Started> InferenceService::FindForResume(
    const v1::ResumeGenerationRequest& request) {
  ASSIGN_OR_RETURN(auto generation, manager_->Find(request.generation_id(), request.principal()));
  const uint64_t last_seq = generation->log().GetState().last_seq;
  if (request.gap_policy() == v1::GAP_POLICY_FAIL && request.after_seq() > last_seq) return AfterBeyondEnd(last_seq);
  return GenerationManager::Started{generation, Generation::Hold(generation), true};
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(grpc::CallbackServerContext*,
                                                                           const v1::GenerateRequest* request) {
  auto started = StartGeneration(*request);
  if (!started.ok()) return new RefusedStream<v1::GenerateResponse>(started.status());
  return StreamReactor<v1::GenerateResponse>::Start(*std::move(started), 0, live_);
}

grpc::ServerWriteReactor<v1::ResumeGenerationResponse>* InferenceService::ResumeGeneration(
    grpc::CallbackServerContext*, const v1::ResumeGenerationRequest* request) {
  auto started = FindForResume(*request);
  if (!started.ok()) return new RefusedStream<v1::ResumeGenerationResponse>(started.status());
  return StreamReactor<v1::ResumeGenerationResponse>::Start(*std::move(started), request->after_seq(), live_);
}

grpc::ServerBidiReactor<v1::LinkRequest, v1::LinkResponse>* InferenceService::Link(grpc::CallbackServerContext*) {
  return LinkReactor::Start(manager_, &options_, live_);
}

grpc::ServerUnaryReactor* InferenceService::GetGeneration(grpc::CallbackServerContext* context,
                                                          const v1::GetGenerationRequest* request,
                                                          v1::GetGenerationResponse* response) {
  auto generation = manager_->Find(request->generation_id(), request->principal());
  if (!generation.ok()) return FinishUnary(context, generation.status());
  const Generation::Hold hold(*generation);  // its end renews the detach timeout
  GenerationToProto(**generation, manager_->ExpiresAt(**generation), response->mutable_generation());
  return FinishUnary(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::CancelGeneration(grpc::CallbackServerContext* context,
                                                             const v1::CancelGenerationRequest* request,
                                                             v1::CancelGenerationResponse* response) {
  auto generation = manager_->Find(request->generation_id(), request->principal());
  if (!generation.ok()) return FinishUnary(context, generation.status());
  response->set_status(StatusToProto(**generation));
  response->set_last_seq((*generation)->log().GetState().last_seq);
  (*generation)->RequestCancel(CancelCause::kRequested);
  return FinishUnary(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::DeleteGeneration(grpc::CallbackServerContext* context,
                                                             const v1::DeleteGenerationRequest* request,
                                                             v1::DeleteGenerationResponse*) {
  return FinishUnary(context, manager_->Delete(request->generation_id(), request->principal()));
}

grpc::ServerUnaryReactor* InferenceService::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest*,
                                                       v1::ListModelsResponse* response) {
  for (const ModelInfo& model : manager_->Models()) ModelToProto(model, response->add_models());
  return FinishUnary(context, absl::OkStatus());
}

}  // namespace runnel::inference
