#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "services/base/mutex.h"

namespace runnel::inference {

// Whether the replica accepts new work, as reported by gRPC's health service. Thread-safe.
class ServingState {
 public:
  // `server` must outlive this object; null if there is none.
  ServingState(grpc::Server* server, std::string service) : server_(server), service_(std::move(service)) {}

  void SetOpen(bool open) EXCLUDES(mu_);
  void SetStalled(bool stalled) EXCLUDES(mu_);
  bool open() const EXCLUDES(mu_);

 private:
  void PublishLocked() REQUIRES(mu_);

  grpc::Server* const server_;
  const std::string service_;
  mutable base::Mutex mu_;
  bool open_ GUARDED_BY(mu_) = false;
  bool stalled_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::inference
