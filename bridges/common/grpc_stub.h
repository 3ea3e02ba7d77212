#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>

#include "runnel/v1/inference.grpc.pb.h"

namespace runnel::bridge {

// The one connection of a bridge to the inference service. Included by link.cc and inference_client.cc only, so that
// gRPC's headers are compiled nowhere else.
struct GrpcStub {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::InferenceService::Stub> stub;
};

}  // namespace runnel::bridge
