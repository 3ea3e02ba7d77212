#include "bridges/link/grpc_poller.h"

namespace runnel::bridge {

GrpcPoller::GrpcPoller() : thread_([this] { Run(); }) {}

GrpcPoller::~GrpcPoller() { queue_.Shutdown(); }

void GrpcPoller::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
    Publish();
    static_cast<GrpcTag*>(tag)->OnComplete(ok);
  }
}

}  // namespace runnel::bridge
