#pragma once

#include <memory>

#include "runnel/v1/inference.grpc.pb.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/rpc/link_reactor.h"
#include "services/inference/rpc/live_calls.h"

namespace runnel::inference {

// runnel.v1.InferenceService on gRPC's callback API. No call blocks; each streaming call has a reactor.
class InferenceService final : public v1::InferenceService::CallbackService {
 public:
  // Both must outlive the service.
  InferenceService(GenerationManager* manager, LiveCalls* live, LinkOptions options);

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::ResumeGenerationResponse>* ResumeGeneration(
      grpc::CallbackServerContext* context, const v1::ResumeGenerationRequest* request) override;
  grpc::ServerBidiReactor<v1::LinkRequest, v1::LinkResponse>* Link(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetGeneration(grpc::CallbackServerContext* context, const v1::GetGenerationRequest* request,
                                          v1::GetGenerationResponse* response) override;
  grpc::ServerUnaryReactor* CancelGeneration(grpc::CallbackServerContext* context,
                                             const v1::CancelGenerationRequest* request,
                                             v1::CancelGenerationResponse* response) override;
  grpc::ServerUnaryReactor* DeleteGeneration(grpc::CallbackServerContext* context,
                                             const v1::DeleteGenerationRequest* request,
                                             v1::DeleteGenerationResponse* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest* request,
                                       v1::ListModelsResponse* response) override;

 private:
  GenerationManager* const manager_;
  LiveCalls* const live_;
  const LinkOptions options_;
};

}  // namespace runnel::inference
