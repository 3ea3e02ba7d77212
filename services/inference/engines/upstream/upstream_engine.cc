#include "services/inference/engines/upstream/upstream_engine.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/mutex.h"
#include "services/base/status_macros.h"
#include "services/base/strings.h"
#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/upstream/upstream_connection.h"
#include "services/inference/engines/upstream/upstream_failure.h"
#include "services/inference/engines/upstream/upstream_request.h"
#include "services/inference/engines/upstream/upstream_set.h"
#include "services/inference/engines/upstream/upstream_stream.h"
#include "services/inference/generation/wake_set.h"

namespace runnel::inference {
namespace {

constexpr absl::Duration kLongestModelsSilence = absl::Seconds(10);
constexpr size_t kMaxUpstreams = 64;
constexpr size_t kMaxModelsBytes = size_t{4} << 20;
// How often the watcher checks the streams. Cancels and Stop wake it earlier.
constexpr absl::Duration kWatchInterval = absl::Milliseconds(500);

absl::Status CheckOptions(const UpstreamOptions& options) {
  if (options.urls.empty() || options.urls.size() > kMaxUpstreams) {
    return absl::InvalidArgumentError(absl::StrCat("upstream: expected 1 to ", kMaxUpstreams, " URLs"));
  }
  if (!std::all_of(options.api_key.begin(), options.api_key.end(),
                   [](unsigned char c) { return absl::ascii_isgraph(c); })) {
    return absl::InvalidArgumentError("upstream: the API key has blanks, control characters or non-ASCII characters");
  }
  if (options.max_failures == 0) return absl::InvalidArgumentError("upstream: max_failures is 0: expected at least 1");
  if (options.max_streams == 0) return absl::InvalidArgumentError("upstream: max_streams is 0: expected at least 1");
  for (const absl::Duration timeout :
       {options.connect_timeout, options.write_timeout, options.silence_timeout, options.first_token_timeout,
        options.next_token_timeout, options.failure_pause}) {
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
  result.connect_timeout = options.connect_timeout;
  result.write_timeout = options.write_timeout;
  result.silence_timeout = options.silence_timeout;
  return result;
}

std::string DescribeFailure(const UpstreamResult& result) {
  switch (result.end) {
    case UpstreamResult::End::kWhole:
      return absl::StrCat("it responds with HTTP ", result.status);
    case UpstreamResult::End::kNoConnect:
      return "the connection failed";
    case UpstreamResult::End::kUntrusted:
      return "the TLS connection failed, or its certificate is not trusted";
    case UpstreamResult::End::kSilent:
      return "it sends no response";
    case UpstreamResult::End::kCut:
      return "it closed the connection";
    case UpstreamResult::End::kUnwanted:
      return absl::StrCat("its response is longer than ", kMaxModelsBytes, " bytes");
  }
  return "";
}

absl::StatusOr<UpstreamModel> AskForModel(UpstreamConnectionOptions options) {
  options.silence_timeout = std::min(options.silence_timeout, kLongestModelsSilence);
  const std::string where = absl::StrCat("upstream ", options.url.tls ? "https://" : "http://", options.url.authority,
                                         options.url.base_path, "/models");
  UpstreamConnection connection(options);
  std::string body;
  UpstreamConnection::Handlers handlers;
  handlers.on_head = [](int, const UpstreamConnection::Head&) { return true; };
  handlers.on_body = [&](std::string_view bytes) {
    body.append(bytes);
    return body.size() <= kMaxModelsBytes;
  };
  const UpstreamResult result = connection.Get("/models", handlers);
  if (result.end != UpstreamResult::End::kWhole || result.status != 200) {
    return absl::UnavailableError(absl::StrCat(where, ": ", DescribeFailure(result)));
  }
  auto model = ParseFirstModel(body);
  if (!model.ok()) {
    return absl::UnavailableError(absl::StrCat(where, ": ", model.status().message(), "; set --upstream_model"));
  }
  return model;
}

struct ServedModel {
  ModelInfo info;
  std::string upstream_id;
};

class UpstreamEngine final : public Engine {
 public:
  UpstreamEngine(const UpstreamOptions& options, const std::vector<UpstreamConnectionOptions>& upstreams,
                 std::vector<ServedModel> models, base::Metrics* metrics);
  ~UpstreamEngine() override { Stop(); }

  std::vector<ModelInfo> Models() const override;
  uint32_t MaxRunning() const override { return options_.max_streams; }
  absl::StatusOr<std::unique_ptr<PreparedGeneration>> Prepare(const GenerationRequest& request) override;
  void Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) override EXCLUDES(mu_);
  void CancelRequested() override EXCLUDES(mu_);
  void Stop() override EXCLUDES(mu_);

 private:
  // False if no thread could be started and there is none.
  bool AddWorkerLocked() REQUIRES(mu_);
  void Work() EXCLUDES(mu_);
  void WatchStreams() EXCLUDES(mu_);
  void SetGaugesLocked() REQUIRES(mu_);

  const UpstreamOptions options_;
  const std::vector<ServedModel> models_;
  UpstreamStream::Options stream_options_;
  base::Metrics* const metrics_;
  prometheus::Gauge& active_gauge_;
  prometheus::Gauge& queued_gauge_;
  prometheus::Counter& failovers_;
  UpstreamSet upstreams_;

  base::Mutex mu_;
  base::CondVar work_;   // queue_ or stopping_
  base::CondVar watch_;  // watch_now_ or stopping_
  std::deque<std::shared_ptr<UpstreamStream>> queue_ GUARDED_BY(mu_);
  std::unordered_set<std::shared_ptr<UpstreamStream>> live_ GUARDED_BY(mu_);  // queued or running
  std::vector<std::jthread> workers_ GUARDED_BY(mu_);
  size_t idle_workers_ GUARDED_BY(mu_) = 0;
  bool watch_now_ GUARDED_BY(mu_) = false;
  bool stopping_ GUARDED_BY(mu_) = false;
  std::jthread watcher_;
};

UpstreamSet::Options SetOptions(const UpstreamOptions& options) {
  UpstreamSet::Options set;
  set.max_streams_each = options.max_streams_each;
  set.max_failures = options.max_failures;
  set.pause = options.failure_pause;
  set.max_idle_connections = options.max_streams;
  set.max_idle = options.max_idle;
  return set;
}

UpstreamEngine::UpstreamEngine(const UpstreamOptions& options, const std::vector<UpstreamConnectionOptions>& upstreams,
                               std::vector<ServedModel> models, base::Metrics* metrics)
    : options_(options),
      models_(std::move(models)),
      metrics_(metrics),
      active_gauge_(metrics->Gauge("runnel_upstream_streams_active", "Upstream streams that a thread is working on.")),
      queued_gauge_(metrics->Gauge("runnel_upstream_streams_queued", "Upstream streams that wait for a thread.")),
      failovers_(metrics->Counter("runnel_upstream_failovers_total",
                                  "Generations moved to another upstream before the first token.")),
      upstreams_(upstreams, SetOptions(options), metrics) {
  stream_options_.answer.limits = {options.max_event_bytes, options.max_event_bytes};
  stream_options_.answer.max_text_bytes = options.max_answer_bytes;
  stream_options_.answer.secret = options.api_key;
  stream_options_.linger = options.linger;
  stream_options_.first_token_timeout = options.first_token_timeout;
  stream_options_.next_token_timeout = options.next_token_timeout;
  watcher_ = std::jthread([this] { WatchStreams(); });
}

std::vector<ModelInfo> UpstreamEngine::Models() const {
  std::vector<ModelInfo> infos;
  for (const ServedModel& model : models_) infos.push_back(model.info);
  return infos;
}

absl::StatusOr<std::unique_ptr<PreparedGeneration>> UpstreamEngine::Prepare(const GenerationRequest& request) {
  const auto served = std::find_if(models_.begin(), models_.end(),
                                   [&](const ServedModel& model) { return model.info.id == request.model; });
  const ServedModel& model = served == models_.end() ? models_.front() : *served;
  auto prepared = std::make_unique<PreparedUpstream>();
  prepared->path = std::string(UpstreamRoute(request));
  prepared->body = UpstreamBody(request, model.upstream_id);
  prepared->choice_count = request.choice_count;
  return prepared;
}

void UpstreamEngine::Start(std::unique_ptr<PreparedGeneration> prepared, std::shared_ptr<EventSink> sink) {
  std::unique_ptr<PreparedUpstream> request(static_cast<PreparedUpstream*>(prepared.release()));
  auto stream = std::make_shared<UpstreamStream>(std::move(request), sink, stream_options_);
  bool refused = false;
  {
    base::MutexLock lock(&mu_);
    if (stopping_) {
      refused = true;
    } else if (idle_workers_ > queue_.size() || AddWorkerLocked()) {
      if (live_.empty()) watch_.NotifyOne();
      live_.insert(stream);
      queue_.push_back(std::move(stream));
      SetGaugesLocked();
      work_.NotifyOne();
      return;
    }
  }
  WakeSet wake;
  sink->Fail(refused ? Failed{"draining", "the service is stopping", true}
                     : Unavailable("no thread can be started for the stream"),
             &wake);
}

bool UpstreamEngine::AddWorkerLocked() {
  if (workers_.size() >= options_.max_streams) return true;
  try {
    workers_.emplace_back([this] { Work(); });
  } catch (const std::system_error&) {
    // No more threads can be started: the queue waits for the existing ones.
    return !workers_.empty();
  }
  return true;
}

void UpstreamEngine::Work() {
  base::MutexLock lock(&mu_);
  while (true) {
    ++idle_workers_;
    while (queue_.empty() && !stopping_) work_.Wait(&mu_);
    --idle_workers_;
    if (queue_.empty()) return;
    const std::shared_ptr<UpstreamStream> stream = std::move(queue_.front());
    queue_.pop_front();
    SetGaugesLocked();
    mu_.Unlock();
    const std::string outcome = stream->Run(&upstreams_, &failovers_);
    metrics_
        ->Counter("runnel_upstream_requests_total", "Generations sent to the upstreams, by outcome.",
                  {{"outcome", outcome}})
        .Increment();
    mu_.Lock();
    live_.erase(stream);
    SetGaugesLocked();
  }
}

void UpstreamEngine::SetGaugesLocked() {
  active_gauge_.Set(static_cast<double>(live_.size() - queue_.size()));
  queued_gauge_.Set(static_cast<double>(queue_.size()));
}

void UpstreamEngine::CancelRequested() {
  base::MutexLock lock(&mu_);
  watch_now_ = true;
  watch_.NotifyOne();
}

void UpstreamEngine::WatchStreams() {
  base::MutexLock lock(&mu_);
  while (!(stopping_ && live_.empty())) {
    const std::vector<std::shared_ptr<UpstreamStream>> streams(live_.begin(), live_.end());
    const bool stopping = stopping_;
    watch_now_ = false;
    mu_.Unlock();
    auto next = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(kWatchInterval);
    for (const auto& stream : streams) next = std::min(next, stream->Watch(stopping));
    upstreams_.Wake();
    mu_.Lock();
    if (watch_now_ || stopping != stopping_) continue;
    if (live_.empty()) {
      if (!stopping_) watch_.Wait(&mu_);
    } else {
      watch_.WaitUntil(&mu_, next);
    }
  }
}

void UpstreamEngine::Stop() {
  std::vector<std::jthread> workers;
  {
    base::MutexLock lock(&mu_);
    stopping_ = true;
    workers = std::move(workers_);
    workers_.clear();
    work_.NotifyAll();
    watch_.NotifyOne();
  }
  // The watcher ends or cuts all streams, so every worker ends.
  for (std::jthread& worker : workers) worker.join();
  {
    base::MutexLock lock(&mu_);
    watch_.NotifyOne();
  }
  if (watcher_.joinable()) watcher_.join();
}

// Asks the upstreams in order, until one responds.
absl::StatusOr<UpstreamModel> AskForModel(const std::vector<UpstreamConnectionOptions>& upstreams) {
  absl::StatusOr<UpstreamModel> model = absl::UnavailableError("no upstream");
  for (size_t i = 0; i < upstreams.size() && !model.ok(); ++i) model = AskForModel(upstreams[i]);
  return model;
}

absl::StatusOr<std::vector<ServedModel>> ServedModels(const UpstreamOptions& options,
                                                      const std::vector<UpstreamConnectionOptions>& upstreams) {
  std::vector<ServedModel> models;
  const absl::Time now = absl::Now();
  for (const auto& [id, upstream_id] : options.models) models.push_back({{id, "upstream", 0, now}, upstream_id});
  if (!models.empty()) return models;
  UpstreamModel model{options.model, 0};
  if (model.id.empty()) {
    ASSIGN_OR_RETURN(model, AskForModel(upstreams));
  }
  models.push_back(
      {{options.model_id.empty() ? model.id : options.model_id, "upstream", model.context_length, now}, model.id});
  return models;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> CreateUpstreamEngine(const UpstreamOptions& options, base::Metrics* metrics) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::vector<UpstreamConnectionOptions> upstreams;
  for (const std::string& text : options.urls) {
    ASSIGN_OR_RETURN(UpstreamUrl url, ParseUpstreamUrl(text));
    upstreams.push_back(ConnectionOptions(options, std::move(url)));
  }
  ASSIGN_OR_RETURN(auto models, ServedModels(options, upstreams));
  return std::make_unique<UpstreamEngine>(options, upstreams, std::move(models), metrics);
}

}  // namespace runnel::inference
