#pragma once

#include <grpcpp/grpcpp.h>

#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <unordered_set>

#include "absl/time/time.h"
#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/mutex.h"
#include "services/inference/generation/owner_probe.h"

namespace runnel::inference {

// With this key in the metadata of a GetGeneration, a replica answers from its memory only: it must not look for its
// own generations in the shared log while another one decides whether to take them over.
inline constexpr char kProbeMetadata[] = "runnel-in-memory";

// Asks replicas by GetGeneration on their gRPC port.
class GrpcOwnerProbe final : public OwnerProbe {
 public:
  struct Options {
    absl::Duration timeout = absl::Milliseconds(200);
    size_t max_channels = 64;  // of replicas that were asked last
  };
  explicit GrpcOwnerProbe(const Options& options) : options_(options) {}
  ~GrpcOwnerProbe() override;

  void Ask(Question question, AnswerCallback done) override EXCLUDES(mu_);
  void Stop() override EXCLUDES(mu_);

  size_t channels() const EXCLUDES(mu_);

 private:
  struct Call;
  struct Replica {
    std::string address;
    std::shared_ptr<v1::InferenceService::Stub> stub;
  };
  std::shared_ptr<v1::InferenceService::Stub> StubLocked(const std::string& address) REQUIRES(mu_);
  void OnReply(const std::shared_ptr<Call>& call, const grpc::Status& status) EXCLUDES(mu_);

  const Options options_;
  mutable base::Mutex mu_;
  base::CondVar idle_;
  std::list<Replica> replicas_ GUARDED_BY(mu_);  // the one that was asked last is first
  std::unordered_set<std::shared_ptr<Call>> calls_ GUARDED_BY(mu_);
  bool stopped_ GUARDED_BY(mu_) = false;
};

}  // namespace runnel::inference
