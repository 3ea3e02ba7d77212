#include "services/inference/rpc/inference_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/base/message_limits.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/rpc/generation_to_proto.h"
#include "services/inference/rpc/grpc_owner_probe.h"
#include "services/inference/rpc/request_from_proto.h"
#include "services/inference/rpc/stream_reactor.h"

namespace runnel::inference {
namespace {

void FinishWith(grpc::ServerUnaryReactor* reactor, const absl::Status& status) {
  reactor->Finish(base::ToGrpcStatus(status));
}

// FailedPrecondition TEXT_TOO_LARGE, for a GetGeneration whose reply would be too large.
absl::Status TextTooLarge(size_t max_bytes) {
  base::ErrorDetail detail;
  detail.reason = "TEXT_TOO_LARGE";
  detail.metadata["max_bytes"] = absl::StrCat(max_bytes);
  return base::MakeError(absl::StatusCode::kFailedPrecondition,
                         absl::StrCat("the text has more than ", max_bytes,
                                      " bytes: read it with ResumeGeneration, or set max_text_bytes"),
                         std::move(detail));
}

}  // namespace

InferenceService::InferenceService(GenerationManager* manager, LiveCalls* live, LinkOptions options)
    : manager_(manager), live_(live), options_(std::move(options)) {}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(grpc::CallbackServerContext*,
                                                                           const v1::GenerateRequest* request) {
  const auto stream = StreamReactor<v1::GenerateResponse>::Open(live_, options_.max_attachment_bytes);
  auto checked = RequestFromProto(*request, options_.defaults, manager_->Models());
  if (!checked.ok()) {
    stream->Reject(checked.status());
    return stream.get();
  }
  manager_->Start(*std::move(checked), RequestFingerprint(*request), [stream](auto started) {
    started.ok() ? stream->Read(*std::move(started), 0) : stream->Reject(started.status());
  });
  return stream.get();
}

grpc::ServerWriteReactor<v1::ResumeGenerationResponse>* InferenceService::ResumeGeneration(
    grpc::CallbackServerContext*, const v1::ResumeGenerationRequest* request) {
  const auto stream = StreamReactor<v1::ResumeGenerationResponse>::Open(live_, options_.max_attachment_bytes);
  const bool may_gap = request->gap_policy() != v1::GAP_POLICY_FAIL;
  manager_->FindAfter(request->generation_id(), request->principal(), request->after_epoch(),
                      [stream, may_gap, after = request->after_seq(), epoch = request->after_epoch()](auto generation) {
                        if (!generation.ok()) return stream->Reject(generation.status());
                        const uint64_t last_seq = (*generation)->log().GetState().last_seq;
                        const bool beyond = after > last_seq || IsTailLost(**generation, after, epoch);
                        if (!may_gap && beyond) return stream->Reject(AfterBeyondEndError(last_seq));
                        stream->Read(GenerationManager::Existing(*std::move(generation)), after, epoch);
                      });
  return stream.get();
}

grpc::ServerBidiReactor<v1::LinkRequest, v1::LinkResponse>* InferenceService::Link(grpc::CallbackServerContext*) {
  return LinkReactor::Start(manager_, &options_, live_);
}

grpc::ServerUnaryReactor* InferenceService::GetGeneration(grpc::CallbackServerContext* context,
                                                          const v1::GetGenerationRequest* request,
                                                          v1::GetGenerationResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  if (context->client_metadata().find(kProbeMetadata) != context->client_metadata().end()) {
    const bool has = manager_->Has(request->generation_id(), request->principal());
    FinishWith(reactor, has ? absl::OkStatus() : GenerationNotFoundError());
    return reactor;
  }
  const bool may_omit = request->has_max_text_bytes();
  const size_t limit = base::kMaxUnaryTextBytes - (request->has_input_offset() ? base::kMaxInputPieceBytes : 0);
  const size_t max_bytes = may_omit ? std::min<uint64_t>(request->max_text_bytes(), limit) : limit;
  manager_->Find(request->generation_id(), request->principal(),
                 [manager = manager_, reactor, request, response, may_omit, max_bytes](auto generation) {
                   if (!generation.ok()) return FinishWith(reactor, generation.status());
                   const Generation::Hold hold(*generation);  // its destruction restarts the detach timeout
                   v1::Generation* const proto = response->mutable_generation();
                   GenerationToProto(**generation, manager->ExpiresAt(**generation), max_bytes, proto);
                   if (request->has_input_offset()) KeptInputToProto(**generation, request->input_offset(), response);
                   FinishWith(reactor, proto->text_omitted() && !may_omit ? TextTooLarge(max_bytes) : absl::OkStatus());
                 });
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::CancelGeneration(grpc::CallbackServerContext* context,
                                                             const v1::CancelGenerationRequest* request,
                                                             v1::CancelGenerationResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  manager_->Find(request->generation_id(), request->principal(), [reactor, response](auto generation) {
    if (!generation.ok()) return FinishWith(reactor, generation.status());
    response->set_status(StatusToProto(**generation));
    response->set_last_seq((*generation)->log().GetState().last_seq);
    response->set_epoch((*generation)->epoch());
    (*generation)->RequestCancel(CancelCause::kRequested);
    FinishWith(reactor, absl::OkStatus());
  });
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::DeleteGeneration(grpc::CallbackServerContext* context,
                                                             const v1::DeleteGenerationRequest* request,
                                                             v1::DeleteGenerationResponse*) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  manager_->Delete(request->generation_id(), request->principal(),
                   [reactor](const absl::Status& status) { FinishWith(reactor, status); });
  return reactor;
}

grpc::ServerUnaryReactor* InferenceService::ListModels(grpc::CallbackServerContext* context,
                                                       const v1::ListModelsRequest*, v1::ListModelsResponse* response) {
  for (const ModelInfo& model : manager_->Models()) ModelToProto(model, response->add_models());
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  FinishWith(reactor, absl::OkStatus());
  return reactor;
}

}  // namespace runnel::inference
