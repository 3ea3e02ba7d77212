// How GenerationManager starts a generation: admission, preparation on the pool, and the result.
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/grpc_status.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/generation/generation_manager.h"
#include "services/inference/generation/manager_error.h"
#include "services/inference/generation/request_record.h"

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
  pending->claimed = terms.claim.number != 0;
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
    return IdempotencyMismatchError();
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
  if (const size_t bytes = unsettled_bytes_ + stored_request_bytes_; bytes > options_.retention_bytes) {
    return QueueFullError(absl::StrCat("requests that run, and logs that are not stored yet, take ", bytes, " bytes"),
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

Generation::Options GenerationManager::OptionsFor(const GenerationRequest& request) {
  Generation::Options options;
  options.principal = request.principal;
  options.model = request.model;
  options.choice_count = request.choice_count;
  options.detach_timeout = request.detach_timeout;
  options.linger = options_.drain_linger;
  options.deliver_reasoning = options_.deliver_reasoning;
  options.annotation = request.annotation;
  options.kept_input = request.kept_input;
  options.discard_stored_log = request.discard_stored_log;
  options.journal = options_.journal;
  options.clock = options_.clock;
  options.metrics = &generation_metrics_;
  options.observer = this;
  return options;
}

void GenerationManager::Commit(const std::shared_ptr<PendingStart>& pending,
                               std::unique_ptr<PreparedGeneration> prepared) {
  Generation::Options generation_options = OptionsFor(pending->request);
  generation_options.id = NewGenerationId(id_prefix_);
  generation_options.prompt_tokens = prepared->prompt_tokens();
  generation_options.fingerprint = prepared->fingerprint();

  base::MutexLock lock(&mu_);
  if (pending->callbacks.empty()) return;
  // Checked again, because the queue may have filled meanwhile.
  if (const absl::Status admitted = AdmitLocked(pending->request.choice_count); !admitted.ok()) {
    CountRejection(admitted);
    waiting_bytes_ -= pending->bytes;
    std::vector<StartCallback> callbacks = TakeCallbacksLocked(pending);
    lock.Release();
    for (StartCallback& done : callbacks) done(admitted);
    return;
  }
  auto generation = std::make_shared<Generation>(std::move(generation_options));
  AddLocked(generation);
  if (options_.journal == nullptr) {
    Launched launched = LaunchLocked(pending, generation, std::move(prepared));
    lock.Release();
    return FinishLaunch(std::move(launched));
  }
  // It is known before it is stored, because another replica that sees it in the store asks this one for it.
  AddRequestLocked(generation.get(), {pending, &pending->request}, pending->bytes);
  pending->generation = std::move(generation);
  pending->prepared = std::move(prepared);
  lock.Release();
  Create(pending, /*with_key=*/true);
}

void GenerationManager::AddLocked(const std::shared_ptr<Generation>& generation) {
  generations_[generation->id()] = generation;
  ++live_;
}

void GenerationManager::NameLocked(const std::string& key, uint64_t fingerprint, const std::string& id) {
  if (key.empty()) return;
  starts_[key] = {fingerprint, id, nullptr};
  start_keys_[id] = key;
}

GenerationManager::Launched GenerationManager::LaunchLocked(const std::shared_ptr<PendingStart>& pending,
                                                            const std::shared_ptr<Generation>& generation,
                                                            std::unique_ptr<PreparedGeneration> prepared) {
  Launched launched;
  launched.callbacks = TakeCallbacksLocked(pending);
  // Not if it was taken over or deleted while it was stored.
  if (generations_.contains(generation->id())) NameLocked(pending->key, pending->fingerprint, generation->id());
  launched.generation = generation;
  for (size_t i = 0; i < launched.callbacks.size(); ++i) {
    launched.results.push_back({generation, Generation::Hold(generation), /*existing=*/i > 0});
  }
  launched.prepared = EnqueueLocked({generation, std::move(prepared), pending->bytes}, /*at_the_head=*/false);
  return launched;
}

void GenerationManager::FinishLaunch(Launched launched) {
  if (launched.prepared != nullptr) {
    launched.generation->Begin();
    engine_->Start(std::move(launched.prepared), launched.generation);
  }
  for (size_t i = 0; i < launched.callbacks.size(); ++i) launched.callbacks[i](std::move(launched.results[i]));
}

std::unique_ptr<PreparedGeneration> GenerationManager::EnqueueLocked(Waiting waiting, bool at_the_head) {
  const uint32_t choices = waiting.generation->choice_count();
  const bool next = at_the_head || waiting_.empty();
  const bool cancelled = waiting.generation->cancelled();
  if (next && !cancelled && running_choices_ + choices <= max_running_) {
    running_choices_ += choices;
    running_.insert(waiting.generation.get());
    waiting_bytes_ -= waiting.bytes;
    return std::move(waiting.prepared);
  }
  waiting_.insert(at_the_head ? waiting_.begin() : waiting_.end(), std::move(waiting));
  if (cancelled) {
    // The thread ends it.
    work_pending_ = true;
    wake_.NotifyOne();
  }
  return nullptr;
}

void GenerationManager::AddRequestLocked(const Generation* generation, std::shared_ptr<const GenerationRequest> request,
                                         size_t bytes) {
  // The journal has it too, as a record.
  stored_requests_[generation] = {std::move(request), 2 * bytes};
  stored_request_bytes_ += 2 * bytes;
}

void GenerationManager::DropRequestLocked(const Generation* generation) {
  const auto found = stored_requests_.find(generation);
  if (found == stored_requests_.end()) return;
  stored_request_bytes_ -= found->second.bytes;
  stored_requests_.erase(found);
}

void GenerationManager::Create(const std::shared_ptr<PendingStart>& pending, bool with_key) {
  JournalMeta meta;
  meta.principal = pending->request.principal;
  if (with_key) meta.request_id = pending->request.request_id;
  meta.request_fingerprint = pending->fingerprint;
  meta.request = EncodeRequest(pending->request);
  options_.journal->Create(pending->generation, std::move(meta), [this, pending, with_key](auto created) {
    OnCreated(pending, with_key, std::move(created));
  });
}

void GenerationManager::OnCreated(const std::shared_ptr<PendingStart>& pending, bool with_key,
                                  absl::StatusOr<Journal::Created> created) {
  if (created.ok() && created->existing_id.empty()) {
    base::MutexLock lock(&mu_);
    if (!pending->callbacks.empty()) {
      const bool hand_over = draining_ && options_.drain_handover;
      // The request is kept with the generation, which it must not hold.
      const std::shared_ptr<Generation> generation = std::move(pending->generation);
      Launched launched = LaunchLocked(pending, generation, std::move(pending->prepared));
      lock.Release();
      FinishLaunch(std::move(launched));
      if (hand_over) HandOver(generation, pending->request);
      return;
    }
    lock.Release();
    AbandonStart(pending);  // Stop has rejected it
    return;
  }
  const bool keyed = with_key && !pending->key.empty();
  // With the claims, no other replica starts it.
  if (!created.ok() && keyed && pending->claimed) return Create(pending, /*with_key=*/false);
  std::vector<StartCallback> callbacks = AbandonStart(pending);
  if (!created.ok()) {
    const absl::Status status =
        keyed ? ClaimRequiredError() : LogUnavailableError("the shared log cannot be reached: nothing was started");
    for (StartCallback& done : callbacks) done(status);
    return;
  }
  if (created->existing_fingerprint != pending->fingerprint) {
    for (StartCallback& done : callbacks) done(IdempotencyMismatchError());
    return;
  }
  for (StartCallback& done : callbacks) {
    Find(created->existing_id, pending->request.principal, [done = std::move(done)](auto found) mutable {
      if (!found.ok()) return done(found.status());
      done(Existing(*std::move(found)));
    });
  }
}

std::vector<GenerationManager::StartCallback> GenerationManager::AbandonStart(
    const std::shared_ptr<PendingStart>& pending) {
  base::MutexLock lock(&mu_);
  const std::shared_ptr<Generation> dropped = std::move(pending->generation);
  std::vector<StartCallback> callbacks = TakeCallbacksLocked(pending);
  if (!callbacks.empty()) waiting_bytes_ -= pending->bytes;
  DropRequestLocked(dropped.get());
  const auto found = generations_.find(dropped->id());
  if (found == generations_.end() || found->second != dropped) return callbacks;
  generations_.erase(found);
  if (--live_ == 0) idle_.NotifyAll();
  lock.Release();
  return callbacks;
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

void GenerationManager::RejectPending(bool stored_too) {
  std::vector<StartCallback> callbacks;
  {
    base::MutexLock lock(&mu_);
    const std::vector<std::shared_ptr<PendingStart>> all(pending_.begin(), pending_.end());
    for (const std::shared_ptr<PendingStart>& pending : all) {
      if (pending->generation != nullptr && !stored_too) continue;
      waiting_bytes_ -= pending->bytes;
      for (StartCallback& done : TakeCallbacksLocked(pending)) callbacks.push_back(std::move(done));
    }
  }
  for (StartCallback& done : callbacks) done(DrainingError(options_.retry_after));
}

}  // namespace runnel::inference
