#include "bridges/link/grpc_stub.h"

#include <utility>

namespace runnel::bridge {

std::shared_ptr<GrpcStub> ConnectTo(const std::string& address, absl::Duration keepalive,
                                    std::shared_ptr<GrpcPoller> poller) {
  grpc::ChannelArguments arguments;
  const auto keepalive_ms = static_cast<int>(absl::ToInt64Milliseconds(keepalive));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_ms / 2);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  // A Link that only receives sends nothing for hours. By default gRPC stops pinging after two pings without data.
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // The Links back off themselves. gRPC's backoff, which doubles to two minutes, would hide a service that is back.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  // Bridges of one process, as in tests, must not share a connection through gRPC's pool.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto stub = std::make_shared<GrpcStub>();
  stub->poller = std::move(poller);
  stub->address = address;
  stub->channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  stub->stub = v1::InferenceService::NewStub(stub->channel);
  return stub;
}

}  // namespace runnel::bridge
