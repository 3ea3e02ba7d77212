#include <grpcpp/grpcpp.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/mutex.h"
#include "tests/bench/load/load_run.h"

namespace runnel::bench {
namespace {

// Shared by all streams. gRPC's threads call back concurrently, so one lock guards all of it.
struct Shared {
  base::Mutex mu;
  base::CondVar changed;
  uint64_t over GUARDED_BY(mu) = 0;
  uint64_t finished GUARDED_BY(mu) = 0;
  Totals* totals GUARDED_BY(mu) = nullptr;
};

// One Generate call. Must outlive OnDone.
class GrpcStream final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  GrpcStream(const LoadOptions& options, int index, Shared* shared, Totals* totals)
      : shared_(shared), check_(totals, MockPlanOf(options, index)) {
    FillRequest(options, index, &request_);
  }

  void Start(v1::InferenceService::Stub* stub) {
    check_.OnRequested(NowMicros());
    stub->async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      base::MutexLock lock(&shared_->mu);
      Totals* const totals = shared_->totals;
      totals->bytes_in += response_.ByteSizeLong();
      if (ReadEventProto(response_.event(), &event_)) {
        check_.OnEvent(&event_, NowMicros());
        if (event_.kind == Event::Kind::kStarted) ++totals->opened;
      }
    }
    StartRead(&response_);
  }

  void OnDone(const grpc::Status& status) override {
    base::MutexLock lock(&shared_->mu);
    ++shared_->over;
    ++shared_->finished;
    if (!check_.verified() && status.error_code() != grpc::StatusCode::CANCELLED) {
      ++shared_->totals->broken;
      shared_->totals->Fault(status.error_message());
    }
    shared_->changed.NotifyAll();
  }

 private:
  Shared* const shared_;
  StreamCheck check_;
  grpc::ClientContext context_;
  v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  Event event_;
};

}  // namespace

LoadResult RunOverGrpc(const LoadOptions& options) {
  LoadResult result;
  Shared shared;
  {
    base::MutexLock lock(&shared.mu);
    shared.totals = &result.totals;
  }
  const auto channel =
      grpc::CreateChannel(absl::StrCat(options.host, ":", options.port), grpc::InsecureChannelCredentials());
  const auto stub = v1::InferenceService::NewStub(channel);
  RunClock clock(&options, &result);
  std::vector<std::unique_ptr<GrpcStream>> streams;
  const auto count = static_cast<uint64_t>(options.streams);
  for (;;) {
    base::MutexLock lock(&shared.mu);
    const int64_t now = NowMicros();
    const bool window_ended = clock.Advance(now);
    const bool idle_done =
        options.idle && options.window == absl::ZeroDuration() && result.totals.opened + result.totals.broken >= count;
    result.timed_out = clock.timed_out(now);
    if (result.timed_out || shared.over >= count || idle_done || (window_ended && options.cut)) {
      clock.Finish(now);
      break;
    }
    const int may = clock.MayHaveOpened(now);
    lock.Release();
    while (static_cast<int>(streams.size()) < may) {
      streams.push_back(
          std::make_unique<GrpcStream>(options, static_cast<int>(streams.size()), &shared, &result.totals));
      streams.back()->Start(stub.get());
    }
    base::MutexLock wait(&shared.mu);
    shared.changed.WaitUntil(&shared.mu, std::chrono::steady_clock::now() + std::chrono::milliseconds(2));
  }
  for (const auto& stream : streams) stream->Cancel();
  base::MutexLock lock(&shared.mu);
  while (shared.finished < streams.size()) shared.changed.Wait(&shared.mu);
  return result;
}

}  // namespace runnel::bench
