#include "services/inference/engines/upstream/upstream_engine.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/mutex.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_connection.h"
#include "services/inference/engines/upstream/upstream_loop.h"
#include "services/inference/engines/upstream/upstream_models.h"
#include "services/inference/engines/upstream/upstream_request.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/engines/upstream/upstream_stream.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

constexpr size_t kMaxUpstreams = 64;
constexpr uint32_t kMaxThreads = 64;

absl::Status CheckOptions(const UpstreamOptions& options) {
  if (options.urls.empty() || options.urls.size() > kMaxUpstreams) {
    return absl::InvalidArgumentError(absl::StrCat("upstream: expected 1 to ", kMaxUpstreams, " URLs"));
  }
  if (!std::all_of(options.api_key.begin(), options.api_key.end(),
                   [](unsigned char c) { return absl::ascii_isgraph(c); })) {
    return absl::InvalidArgumentError("upstream: the API key has blanks, control characters or non-ASCII characters");
  }
  if (options.max_failures == 0) return absl::InvalidArgumentError("upstream: max_failures is 0: expected at least 1");
  if (options.threads == 0 || options.threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("upstream: threads is ", options.threads, ": expected 1 to ", kMaxThreads));
  }
  if (options.client_cert_file.empty() != options.client_key_file.empty()) {
    return absl::InvalidArgumentError("upstream: a client certificate needs its key, and the key its certificate");
  }
  if (options.flush_interval < absl::ZeroDuration() || options.flush_interval > absl::Milliseconds(100)) {
    return absl::InvalidArgumentError("upstream: flush_interval must be 0 to 100 ms");
  }
  if (options.max_streams == 0) return absl::InvalidArgumentError("upstream: max_streams is 0: expected at least 1");
  for (const absl::Duration timeout :
       {options.connect_timeout, options.write_timeout, options.first_byte_timeout, options.first_token_timeout,
        options.next_token_timeout, options.total_timeout, options.failure_pause}) {
    if (timeout < absl::Milliseconds(1) || timeout > absl::Hours(24)) {
      return absl::InvalidArgumentError("upstream: each timeout must be 1 ms to 24 h");
    }
  }
  return absl::OkStatus();
}

UpstreamConnectionOptions ConnectionOptions(const UpstreamOptions& options, UpstreamUrl url) {
  UpstreamConnectionOptions result;
  result.url = std::move(url);
  result.api_key = options.api_key;
  result.ca_file = options.ca_file;
  result.client_cert_file = options.client_cert_file;
  result.client_key_file = options.client_key_file;
  result.connect_timeout = options.connect_timeout;
  result.write_timeout = options.write_timeout;
  result.first_byte_timeout = options.first_byte_timeout;
  return result;
}

struct ServedModel {
  ModelInfo info;
  std::string upstream_id;
};

class UpstreamEngine final : public Engine {
 public:
  UpstreamEngine(const UpstreamOptions& options, std::vector<std::unique_ptr<UpstreamTarget>> targets,
                 std::vector<ServedModel> models, base::Metrics* metrics);
  ~UpstreamEngine() override { Stop(); }

  std::vector<ModelInfo> Models() const override;
  uint32_t MaxRunning() const override { return options_.max_streams; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest& request) override;
  bool CanContinue(const GenerationRequest& request, const LogSegment& log) const override {
    return inference::CanContinue(options_.continuation, request, log);
  }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> PrepareContinuation(
      const GenerationRequest& request, std::shared_ptr<const LogSegment> log) override;
  void Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) override EXCLUDES(mu_);
  void CancelRequested() override;
  void Stop() override EXCLUDES(mu_);

 private:
  // `request` has been checked.
  std::unique_ptr<PreparedUpstream> MakePrepared(const GenerationRequest& request) const;
  void OnOver(const std::string& outcome);

  const UpstreamOptions options_;
  const std::vector<ServedModel> models_;
  UpstreamStream::Options stream_options_;
  base::Metrics* const metrics_;
  prometheus::Gauge& active_gauge_;
  prometheus::Counter& failovers_;
  UpstreamSet upstreams_;
  UpstreamLoop::Shared shared_;
  std::vector<std::unique_ptr<UpstreamLoop>> loops_;
  UpstreamResolver resolver_;  // after the loops, to which it posts

  base::Mutex mu_;
  size_t next_loop_ GUARDED_BY(mu_) = 0;
  bool stopping_ GUARDED_BY(mu_) = false;
};

UpstreamSet::Options SetOptions(const UpstreamOptions& options, const std::vector<ServedModel>& models,
                                std::function<void()> on_free) {
  UpstreamSet::Options set;
  set.models.clear();
  for (const ServedModel& model : models) set.models.push_back(model.info.id);
  set.max_streams_each = options.max_streams_each;
  set.max_failures = options.max_failures;
  set.pause = options.failure_pause;
  set.on_free = std::move(on_free);
  return set;
}

std::vector<std::string> NamesOf(const std::vector<std::unique_ptr<UpstreamTarget>>& targets) {
  std::vector<std::string> names;
  names.reserve(targets.size());
  for (const auto& target : targets) names.push_back(target->options().url.authority);
  return names;
}

UpstreamEngine::UpstreamEngine(const UpstreamOptions& options, std::vector<std::unique_ptr<UpstreamTarget>> targets,
                               std::vector<ServedModel> models, base::Metrics* metrics)
    : options_(options),
      models_(std::move(models)),
      metrics_(metrics),
      active_gauge_(metrics->Gauge("runnel_upstream_streams_active", "Upstream streams that have not ended.")),
      failovers_(metrics->Counter("runnel_upstream_failovers_total",
                                  "Generations moved to another upstream before the first token.")),
      upstreams_(NamesOf(targets),
                 SetOptions(options, models_,
                            [this] {
                              for (const auto& loop : loops_) loop->OnPlaceFree();
                            }),
                 metrics) {
  stream_options_.output.limits = {options.max_event_bytes, options.max_event_bytes};
  stream_options_.output.max_text_bytes = options.max_output_bytes;
  stream_options_.output.secret = options.api_key;
  stream_options_.linger = options.linger;
  stream_options_.first_token_timeout = options.first_token_timeout;
  stream_options_.next_token_timeout = options.next_token_timeout;
  stream_options_.total_timeout = options.total_timeout;
  shared_.targets = std::move(targets);
  shared_.set = &upstreams_;
  shared_.resolver = &resolver_;
  shared_.idle_gauge = &metrics->Gauge("runnel_upstream_idle_connections", "Idle upstream connections kept for reuse.");
  shared_.exceptions = &metrics->Counter("runnel_upstream_exceptions_total",
                                         "Exceptions on the event loops, each of which failed at most one generation.");
  shared_.max_idle_connections = options.max_streams;
  shared_.max_idle = options.max_idle;
  shared_.flush_interval = options.flush_interval;
  for (uint32_t i = 0; i < options.threads; ++i) loops_.push_back(std::make_unique<UpstreamLoop>(&shared_));
}

std::vector<ModelInfo> UpstreamEngine::Models() const {
  std::vector<ModelInfo> infos;
  for (const ServedModel& model : models_) infos.push_back(model.info);
  return infos;
}

absl::StatusOr<std::unique_ptr<PreparedGeneration>> UpstreamEngine::Prepare(const GenerationRequest& request) {
  RETURN_IF_ERROR(CheckUpstreamFields(request, options_.extra_fields));
  return MakePrepared(request);
}

absl::StatusOr<std::unique_ptr<PreparedGeneration>> UpstreamEngine::PrepareContinuation(
    const GenerationRequest& request, std::shared_ptr<const LogSegment> log) {
  RETURN_IF_ERROR(CheckUpstreamFields(request, options_.extra_fields));
  if (!HasOutput(*log)) return MakePrepared(request);
  if (!CanContinue(request, *log)) {
    return absl::FailedPreconditionError("--upstream_continue has no way to continue this output");
  }
  ASSIGN_OR_RETURN(std::vector<LoggedOutput> outputs, OutputsOf(*log, request.choice_count));
  GenerationRequest rest = request;
  UpstreamContinuation continuation = ContinueFromLog(options_.continuation, std::move(log), &rest);
  auto prepared = MakePrepared(rest);
  if (continuation.replayed != nullptr) prepared->logged = std::move(outputs);
  prepared->continuation = std::move(continuation);
  return prepared;
}

std::unique_ptr<PreparedUpstream> UpstreamEngine::MakePrepared(const GenerationRequest& request) const {
  const auto served = std::find_if(models_.begin(), models_.end(),
                                   [&](const ServedModel& model) { return model.info.id == request.model; });
  const size_t number = served == models_.end() ? 0 : static_cast<size_t>(served - models_.begin());
  auto prepared = std::make_unique<PreparedUpstream>();
  prepared->path = std::string(UpstreamRoute(request));
  prepared->body = MakeUpstreamBody(request, models_[number].upstream_id, options_.token_limit_name);
  prepared->model = number;
  prepared->max_tokens = request.max_tokens;
  prepared->choice_count = request.choice_count;
  prepared->stop = request.stop;
  return prepared;
}

void UpstreamEngine::Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) {
  std::unique_ptr<PreparedUpstream> request(static_cast<PreparedUpstream*>(prepared.release()));
  UpstreamLoop* loop = nullptr;
  {
    base::MutexLock lock(&mu_);
    if (!stopping_) {
      loop = loops_[next_loop_++ % loops_.size()].get();
      active_gauge_.Increment();
      loop->Start(std::make_shared<UpstreamStream>(loop, std::move(request), sink, stream_options_, &failovers_,
                                                   [this](const std::string& outcome) { OnOver(outcome); }));
    }
  }
  if (loop != nullptr) return;
  WakeSet wake;
  sink->Fail({"draining", "the service is stopping", true}, &wake);
}

void UpstreamEngine::OnOver(const std::string& outcome) {
  active_gauge_.Decrement();
  metrics_
      ->Counter("runnel_upstream_requests_total", "Generations sent to the upstreams, by outcome.",
                {{"outcome", outcome}})
      .Increment();
}

void UpstreamEngine::CancelRequested() {
  for (const auto& loop : loops_) loop->CheckCancelled();
}

void UpstreamEngine::Stop() {
  {
    base::MutexLock lock(&mu_);
    if (std::exchange(stopping_, true)) return;
    for (const auto& loop : loops_) loop->Stop();
  }
  for (const auto& loop : loops_) loop->Join();
}

absl::StatusOr<std::vector<ServedModel>> ServedModels(const UpstreamOptions& options,
                                                      const std::vector<std::unique_ptr<UpstreamTarget>>& targets,
                                                      const std::function<bool()>& stopped) {
  std::vector<ServedModel> models;
  const absl::Time now = absl::Now();
  for (const auto& [id, upstream_id] : options.models) models.push_back({{id, "upstream", 0, now}, upstream_id});
  if (!models.empty()) return models;
  UpstreamModel model{options.model, 0};
  if (model.id.empty()) {
    ASSIGN_OR_RETURN(model, AskForModel(targets, stopped));
  }
  models.push_back(
      {{options.model_id.empty() ? model.id : options.model_id, "upstream", model.context_length, now}, model.id});
  return models;
}

absl::StatusOr<std::vector<std::unique_ptr<UpstreamTarget>>> MakeTargets(const UpstreamOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::vector<std::unique_ptr<UpstreamTarget>> targets;
  for (const std::string& text : options.urls) {
    ASSIGN_OR_RETURN(UpstreamUrl url, ParseUpstreamUrl(text));
    ASSIGN_OR_RETURN(auto target, UpstreamTarget::Create(ConnectionOptions(options, std::move(url))));
    targets.push_back(std::move(target));
  }
  return targets;
}

}  // namespace

absl::Status CheckUpstreamIsReady(const UpstreamOptions& options, const std::function<bool()>& stopped) {
  ASSIGN_OR_RETURN(const auto targets, MakeTargets(options));
  return CheckModels(targets, stopped);
}

absl::StatusOr<std::unique_ptr<Engine>> CreateUpstreamEngine(const UpstreamOptions& options, base::Metrics* metrics,
                                                             const std::function<bool()>& stopped) {
  ASSIGN_OR_RETURN(auto targets, MakeTargets(options));
  ASSIGN_OR_RETURN(auto models, ServedModels(options, targets, stopped));
  return std::make_unique<UpstreamEngine>(options, std::move(targets), std::move(models), metrics);
}

}  // namespace runnel::inference
