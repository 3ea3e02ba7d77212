#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "bridges/link/grpc_poller.h"
#include "runnel/v1/inference.grpc.pb.h"

namespace runnel::bridge {

// The one connection of a bridge to a replica of the inference service, shared by all of its threads. Included only
// where calls are made, so that gRPC's headers are compiled nowhere else.
//
// The last reference must not be released on a thread of gRPC or of the poller, because its destructor waits for them.
struct GrpcStub {
  std::shared_ptr<GrpcPoller> poller;  // for the calls
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::InferenceService::Stub> stub;
};

// `address` is host:port, or any name that gRPC accepts. Does not connect yet. A replica that is silent for `keepalive`
// and does not reply to a ping within half of it counts as lost.
std::shared_ptr<GrpcStub> ConnectTo(const std::string& address, absl::Duration keepalive,
                                    std::shared_ptr<GrpcPoller> poller);

}  // namespace runnel::bridge
