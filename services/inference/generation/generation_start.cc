// How GenerationManager starts a generation: admission, preparation on the pool, and the result.
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/manager_error.h"

namespace runnel::inference {
namespace {

// The approximate memory of a request while it waits. A message without text counts too: a request of a megabyte can
// hold a quarter of a million of them.
size_t BodyBytes(const GenerationRequest& request) {
  size_t bytes = sizeof(GenerationRequest) + request.prompt.size() + request.output_format.json_schema.size() +
                 request.annotation.size() + request.kept_input.size() + request.messages.size() * sizeof(ChatMessage);
  for (const ChatMessage& message : request.messages) {
    bytes += message.content.size() + message.reasoning.size() + message.tool_call_id.size() +
             message.parts.size() * sizeof(ContentPart) + message.tool_calls.size() * sizeof(CalledTool);
    for (const ContentPart& part : message.parts) bytes += part.value.size();
    for (const CalledTool& call : message.tool_calls) {
      bytes += call.id.size() + call.name.size() + call.arguments.size();
    }
  }
  for (const Tool& tool : request.tools) {
    bytes += sizeof(Tool) + tool.name.size() + tool.description.size() + tool.parameters.size();
  }
  if (request.tool_choice.has_value()) {
    for (const std::string& name : request.tool_choice->allowed) bytes += sizeof(std::string) + name.size();
  }
  for (const auto* pairs : {&request.metadata, &request.extra_fields}) {
    for (const auto& [key, value] : *pairs) bytes += key.size() + value.size();
  }
  return bytes;
}

}  // namespace

std::string GenerationManager::StartKey(const std::string& principal, const std::string& request_id) {
  if (request_id.empty()) return {};
  return absl::StrCat(principal, absl::string_view("\0", 1), request_id);
}

void GenerationManager::Start(GenerationRequest request, uint64_t fingerprint, StartTerms terms, StartCallback done) {
  const std::string key = StartKey(request.principal, request.request_id);
  const size_t bytes = BodyBytes(request);
  base::MutexLock lock(&mu_);
  if (const auto found = starts_.find(key); found != starts_.end()) {
    const std::shared_ptr<PendingStart>& pending = found->second.pending;
    absl::StatusOr<Started> repeated = RepeatLocked(found->second, fingerprint);
    if (repeated.ok() && pending != nullptr) {
      ++preparing_;
      pending->callbacks.push_back(std::move(done));
      return;
    }
    lock.Release();
    return done(std::move(repeated));
  }
  absl::Status admitted = CheckClaimLocked(key, terms);
  if (admitted.ok()) admitted = AdmitLocked(request.choice_count);
  if (admitted.ok()) admitted = AdmitPreparationLocked(bytes);
  if (!admitted.ok()) {
    CountRejection(admitted);
    lock.Release();
    return done(std::move(admitted));
  }
  auto pending = std::make_shared<PendingStart>();
  pending->request = std::move(request);
  pending->fingerprint = fingerprint;
  pending->key = key;
  pending->bytes = bytes;
  pending->callbacks.push_back(std::move(done));
  pending_.insert(pending);
  if (!key.empty()) starts_[key] = {fingerprint, "", pending};
  ++preparing_;
  waiting_bytes_ += bytes;
  lock.Release();
  prepare_pool_.Add([this, pending] { Prepare(pending); });
}

absl::StatusOr<GenerationManager::Started> GenerationManager::RepeatLocked(const IdempotentStart& start,
                                                                           uint64_t fingerprint) const {
  if (start.fingerprint != fingerprint) {
    return base::MakeError(absl::StatusCode::kInvalidArgument, "IDEMPOTENCY_MISMATCH",
                           "request_id was used before with a different request: use a new one");
  }
  if (start.pending == nullptr) return Existing(generations_.at(start.generation_id));
  if (absl::Status admitted = AdmitPreparationLocked(0); !admitted.ok()) return admitted;
  return Started();
}

GenerationManager::Started GenerationManager::Existing(std::shared_ptr<Generation> generation) {
  Generation::Hold hold(generation);
  return {std::move(generation), std::move(hold), true};
}

absl::Status GenerationManager::AdmitLocked(uint32_t choice_count) const {
  if (draining_) return DrainingError(options_.retry_after);
  if (choice_count > max_running_) {
    return base::InvalidField(
        "choice_count", absl::StrCat("must be at most ", max_running_, ", the number of choices that run at a time"));
  }
  // Logs that have ended can be purged, unless they are not stored yet.
  if (unsettled_bytes_ > options_.retention_bytes) {
    return QueueFullError(absl::StrCat("logs that are not stored yet take ", unsettled_bytes_, " bytes"),
                          options_.retry_after);
  }
  const bool runs_now = waiting_.empty() && running_choices_ + choice_count <= max_running_;
  if (!runs_now && waiting_.size() >= options_.max_waiting) {
    return QueueFullError(absl::StrCat("the queue is full: ", waiting_.size(), " generations are waiting"),
                          options_.retry_after);
  }
  return absl::OkStatus();
}

absl::Status GenerationManager::AdmitPreparationLocked(size_t bytes) const {
  if (preparing_ >= options_.max_preparing) {
    return QueueFullError(absl::StrCat("the queue is full: ", preparing_, " requests are being prepared"),
                          options_.retry_after);
  }
  // A request is always admitted if no other waits; otherwise a large one never could be.
  if (bytes > 0 && waiting_bytes_ > 0 && waiting_bytes_ + bytes > options_.max_waiting_bytes) {
    return QueueFullError(absl::StrCat("the queue is full: the waiting requests take ", waiting_bytes_, " bytes"),
                          options_.retry_after);
  }
  return absl::OkStatus();
}

void GenerationManager::CountRejection(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) rejected_.Increment();
}

void GenerationManager::Prepare(const std::shared_ptr<PendingStart>& pending) {
  {
    base::MutexLock lock(&mu_);
    if (pending->callbacks.empty()) return;  // a drain has rejected it
  }
  auto prepared = engine_->Prepare(pending->request);
  if (prepared.ok()) return Commit(pending, *std::move(prepared));
  base::MutexLock lock(&mu_);
  std::vector<StartCallback> callbacks = TakeCallbacksLocked(pending);
  waiting_bytes_ -= callbacks.empty() ? 0 : pending->bytes;
  lock.Release();
  for (StartCallback& done : callbacks) done(prepared.status());
}

void GenerationManager::Commit(const std::shared_ptr<PendingStart>& pending,
                               std::unique_ptr<PreparedGeneration> prepared) {
  const GenerationRequest& request = pending->request;
  Generation::Options generation_options;
  generation_options.id = NewGenerationId(id_prefix_);
  generation_options.principal = request.principal;
  generation_options.model = request.model;
  generation_options.choice_count = request.choice_count;
  generation_options.prompt_tokens = prepared->prompt_tokens();
  generation_options.fingerprint = prepared->fingerprint();
  generation_options.detach_timeout = request.detach_timeout;
  generation_options.linger = options_.drain_linger;
  generation_options.deliver_reasoning = options_.deliver_reasoning;
  generation_options.annotation = request.annotation;
  generation_options.kept_input = request.kept_input;
  generation_options.journal = options_.journal;
  generation_options.clock = options_.clock;
  generation_options.metrics = &generation_metrics_;
  generation_options.observer = this;

  base::MutexLock lock(&mu_);
  std::vector<StartCallback> callbacks = TakeCallbacksLocked(pending);
  if (callbacks.empty()) return;
  // Checked again, because the queue may have filled meanwhile.
  if (const absl::Status admitted = AdmitLocked(request.choice_count); !admitted.ok()) {
    CountRejection(admitted);
    waiting_bytes_ -= pending->bytes;
    lock.Release();
    for (StartCallback& done : callbacks) done(admitted);
    return;
  }
  auto generation = std::make_shared<Generation>(std::move(generation_options));
  generations_[generation->id()] = generation;
  if (!pending->key.empty()) {
    starts_[pending->key] = {pending->fingerprint, generation->id(), nullptr};
    start_keys_[generation->id()] = pending->key;
  }
  ++live_;
  std::vector<Started> results;
  for (size_t i = 0; i < callbacks.size(); ++i) {
    results.push_back({generation, Generation::Hold(generation), /*existing=*/i > 0});
  }
  const bool runs_now = waiting_.empty() && running_choices_ + request.choice_count <= max_running_;
  if (runs_now) {
    running_choices_ += request.choice_count;
    running_.insert(generation.get());
    waiting_bytes_ -= pending->bytes;
  } else {
    waiting_.push_back({generation, std::move(prepared), pending->bytes});
  }
  lock.Release();
  if (runs_now) {
    generation->Begin();
    engine_->Start(std::move(prepared), generation);
  }
  for (size_t i = 0; i < callbacks.size(); ++i) callbacks[i](std::move(results[i]));
}

std::vector<GenerationManager::StartCallback> GenerationManager::TakeCallbacksLocked(
    const std::shared_ptr<PendingStart>& pending) {
  std::vector<StartCallback> callbacks;
  callbacks.swap(pending->callbacks);
  if (callbacks.empty()) return callbacks;
  preparing_ -= callbacks.size();
  pending_.erase(pending);
  if (!pending->key.empty()) starts_.erase(pending->key);
  return callbacks;
}

void GenerationManager::RejectPending() {
  std::vector<StartCallback> callbacks;
  {
    base::MutexLock lock(&mu_);
    while (!pending_.empty()) {
      const std::shared_ptr<PendingStart> pending = *pending_.begin();
      waiting_bytes_ -= pending->bytes;
      for (StartCallback& done : TakeCallbacksLocked(pending)) callbacks.push_back(std::move(done));
    }
  }
  for (StartCallback& done : callbacks) done(DrainingError(options_.retry_after));
}

}  // namespace runnel::inference
