#include "tests/testing/fake_inference_service.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runnel/v1/inference.grpc.pb.h"
#include "services/base/grpc_status.h"
#include "services/base/mutex.h"

namespace runnel::testing {
namespace {

// Small, so that every kept input takes several calls.
constexpr size_t kInputPieceBytes = 10;

constexpr std::chrono::seconds kPatience(10);

std::chrono::steady_clock::time_point Deadline() { return std::chrono::steady_clock::now() + kPatience; }

}  // namespace

// One Link. Owns itself until OnDone.
class FakeInferenceService::LinkReactor final : public grpc::ServerBidiReactor<v1::LinkRequest, v1::LinkResponse>,
                                                public std::enable_shared_from_this<LinkReactor> {
 public:
  LinkReactor(Service* service, int index) : service_(service), index_(index) {}

  // Every callback takes mu_ first, because ThreadSanitizer does not see gRPC's locks, which order its threads.
  void Begin(std::shared_ptr<LinkReactor> self) EXCLUDES(mu_) {
    {
      base::MutexLock lock(&mu_);
      self_ = std::move(self);
    }
    StartRead(&request_);
  }
  void Send(v1::LinkResponse response) EXCLUDES(mu_);
  void End(const absl::Status& status) EXCLUDES(mu_);

  void OnReadDone(bool ok) override EXCLUDES(mu_);
  void OnWriteDone(bool ok) override EXCLUDES(mu_);
  void OnDone() override EXCLUDES(mu_);

 private:
  Service* const service_;
  const int index_;
  v1::LinkRequest request_;
  v1::LinkResponse writing_;
  base::Mutex mu_;
  std::shared_ptr<LinkReactor> self_ GUARDED_BY(mu_);
  std::deque<v1::LinkResponse> outbox_ GUARDED_BY(mu_);
  bool write_in_flight_ GUARDED_BY(mu_) = false;
  bool finished_ GUARDED_BY(mu_) = false;
};

class FakeInferenceService::Service final : public v1::InferenceService::CallbackService {
 public:
  explicit Service(const Options& options) : id_prefix(options.id_prefix), options_(options) { Start(0); }

  void Start(int port) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  void Stop() EXCLUDES(mu) {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_.reset();
    // The last callbacks may still be running on gRPC's threads.
    base::MutexLock lock(&mu);
    while (open > 0) changed.Wait(&mu);
  }
  int port() const { return port_; }

  grpc::ServerBidiReactor<v1::LinkRequest, v1::LinkResponse>* Link(grpc::CallbackServerContext*) override {
    std::shared_ptr<LinkReactor> link;
    {
      base::MutexLock lock(&mu);
      link = std::make_shared<LinkReactor>(this, static_cast<int>(links.size()));
      links.push_back(link);
      ++open;
      changed.NotifyAll();
    }
    link->Begin(link);
    if (options_.greet) {
      v1::LinkResponse hello;
      hello.mutable_hello()->set_replica("fake");
      hello.mutable_hello()->set_id_prefix(GetIdPrefix());
      hello.mutable_hello()->set_max_attachments(options_.max_attachments);
      hello.mutable_hello()->set_max_request_bytes(options_.max_request_bytes);
      hello.mutable_hello()->set_shared_log(options_.shared_log);
      hello.mutable_hello()->mutable_retention()->set_seconds(options_.retention_seconds);
      if (options_.claim_lease_seconds > 0) {
        hello.mutable_hello()->mutable_claim_lease()->set_seconds(options_.claim_lease_seconds);
      }
      link->Send(std::move(hello));
    }
    return link.get();
  }

  grpc::ServerUnaryReactor* GetGeneration(grpc::CallbackServerContext* context, const v1::GetGenerationRequest* request,
                                          v1::GetGenerationResponse* response) override {
    const auto handler = GetHandlers().get;
    if (!handler) return Finish(context, Unimplemented());
    auto result = handler(request->generation_id());
    if (result.ok()) *response->mutable_generation() = *result;
    if (const auto input = GetHandlers().input; input && request->has_input_offset()) {
      const std::string whole = input(request->generation_id());
      response->set_input_bytes(whole.size());
      if (request->input_offset() < whole.size()) {
        response->set_input(whole.substr(request->input_offset(), kInputPieceBytes));
      }
    }
    return Finish(context, result.status());
  }
  grpc::ServerUnaryReactor* CancelGeneration(grpc::CallbackServerContext* context,
                                             const v1::CancelGenerationRequest* request,
                                             v1::CancelGenerationResponse* response) override {
    const auto handler = GetHandlers().cancel;
    if (!handler) return Finish(context, Unimplemented());
    auto result = handler(request->generation_id());
    if (result.ok()) *response = *result;
    return Finish(context, result.status());
  }
  grpc::ServerUnaryReactor* DeleteGeneration(grpc::CallbackServerContext* context,
                                             const v1::DeleteGenerationRequest* request,
                                             v1::DeleteGenerationResponse*) override {
    const auto handler = GetHandlers().remove;
    return Finish(context, handler ? handler(request->generation_id()) : Unimplemented());
  }
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const v1::ListModelsRequest*,
                                       v1::ListModelsResponse* response) override {
    const auto handler = GetHandlers().list_models;
    if (!handler) return Finish(context, Unimplemented());
    auto result = handler();
    if (result.ok()) *response = *result;
    return Finish(context, result.status());
  }

  std::string GetIdPrefix() EXCLUDES(mu) {
    base::MutexLock lock(&mu);
    return id_prefix;
  }
  Handlers GetHandlers() EXCLUDES(mu) {
    base::MutexLock lock(&mu);
    return handlers;
  }
  std::shared_ptr<LinkReactor> Find(int index) EXCLUDES(mu) {
    base::MutexLock lock(&mu);
    const auto at = static_cast<size_t>(index);
    return at < links.size() ? links[at] : nullptr;
  }

  base::Mutex mu;
  base::CondVar changed;
  std::vector<std::shared_ptr<LinkReactor>> links GUARDED_BY(mu);  // null once it has ended
  std::deque<Command> commands GUARDED_BY(mu);
  Handlers handlers GUARDED_BY(mu);
  std::string id_prefix GUARDED_BY(mu);
  int open GUARDED_BY(mu) = 0;

 private:
  static absl::Status Unimplemented() { return absl::UnimplementedError("no handler was set"); }
  static grpc::ServerUnaryReactor* Finish(grpc::CallbackServerContext* context, const absl::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(base::ToGrpcStatus(status));
    return reactor;
  }

  const Options options_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

void FakeInferenceService::LinkReactor::Send(v1::LinkResponse response) {
  {
    base::MutexLock lock(&mu_);
    if (finished_) return;
    if (write_in_flight_) {
      outbox_.push_back(std::move(response));
      return;
    }
    write_in_flight_ = true;
    writing_ = std::move(response);
  }
  StartWrite(&writing_);
}

void FakeInferenceService::LinkReactor::End(const absl::Status& status) {
  {
    base::MutexLock lock(&mu_);
    if (std::exchange(finished_, true)) return;
  }
  Finish(base::ToGrpcStatus(status));
}

void FakeInferenceService::LinkReactor::OnReadDone(bool ok) {
  if (!ok) return End(absl::OkStatus());
  Command command;
  {
    base::MutexLock lock(&mu_);
    command.link = index_;
    command.request = request_;
  }
  {
    base::MutexLock lock(&service_->mu);
    service_->commands.push_back(std::move(command));
    service_->changed.NotifyAll();
  }
  StartRead(&request_);
}

void FakeInferenceService::LinkReactor::OnWriteDone(bool ok) {
  {
    base::MutexLock lock(&mu_);
    write_in_flight_ = false;
    if (!ok || finished_ || outbox_.empty()) return;
    write_in_flight_ = true;
    writing_ = std::move(outbox_.front());
    outbox_.pop_front();
  }
  StartWrite(&writing_);
}

void FakeInferenceService::LinkReactor::OnDone() {
  base::MutexLock own_lock(&mu_);
  const std::shared_ptr<LinkReactor> self = std::move(self_);
  own_lock.Release();
  base::MutexLock lock(&service_->mu);
  service_->links[static_cast<size_t>(index_)] = nullptr;
  --service_->open;
  service_->changed.NotifyAll();
}

uint32_t FakeInferenceService::Command::attachment() const {
  if (request.has_generate()) return request.generate().attachment();
  return request.has_attach() ? request.attach().attachment() : request.detach().attachment();
}

FakeInferenceService::FakeInferenceService(const Options& options)
    : options_(options), service_(std::make_unique<Service>(options_)) {}

FakeInferenceService::~FakeInferenceService() { Stop(); }

std::string FakeInferenceService::target() const { return absl::StrCat("127.0.0.1:", service_->port()); }

void FakeInferenceService::SetHandlers(Handlers handlers) {
  base::MutexLock lock(&service_->mu);
  service_->handlers = std::move(handlers);
}

void FakeInferenceService::SetIdPrefix(const std::string& prefix) {
  base::MutexLock lock(&service_->mu);
  service_->id_prefix = prefix;
}

void FakeInferenceService::Stop() { service_->Stop(); }

void FakeInferenceService::Restart() { service_->Start(service_->port()); }

std::optional<FakeInferenceService::Command> FakeInferenceService::NextCommand() {
  const auto deadline = Deadline();
  base::MutexLock lock(&service_->mu);
  while (service_->commands.empty()) {
    if (!service_->changed.WaitUntil(&service_->mu, deadline) && service_->commands.empty()) return std::nullopt;
  }
  Command command = std::move(service_->commands.front());
  service_->commands.pop_front();
  return command;
}

size_t FakeInferenceService::pending_commands() const {
  base::MutexLock lock(&service_->mu);
  return service_->commands.size();
}

int FakeInferenceService::links_opened() const {
  base::MutexLock lock(&service_->mu);
  return static_cast<int>(service_->links.size());
}

int FakeInferenceService::links_open() const {
  base::MutexLock lock(&service_->mu);
  return service_->open;
}

bool FakeInferenceService::WaitForLinksOpened(int count) {
  const auto deadline = Deadline();
  base::MutexLock lock(&service_->mu);
  while (static_cast<int>(service_->links.size()) < count) {
    if (!service_->changed.WaitUntil(&service_->mu, deadline)) return static_cast<int>(service_->links.size()) >= count;
  }
  return true;
}

void FakeInferenceService::Send(int link, v1::LinkResponse response) {
  if (const auto found = service_->Find(link)) found->Send(std::move(response));
}

void FakeInferenceService::EndLink(int link, const absl::Status& status) {
  if (const auto found = service_->Find(link)) found->End(status);
}

void FakeInferenceService::Attach(const Command& command, const std::string& generation_id, v1::GenerationStatus status,
                                  uint64_t last_seq, bool existing) {
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  reply->mutable_attached()->set_generation_id(generation_id);
  reply->mutable_attached()->set_model("fake");
  reply->mutable_attached()->set_status(status);
  reply->mutable_attached()->set_last_seq(last_seq);
  reply->mutable_attached()->set_existing(existing || command.request.has_attach());
  Send(command.link, std::move(response));
}

void FakeInferenceService::Reject(const Command& command, const absl::Status& status) {
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  *reply->mutable_rejected() = base::ToRpcStatus(status);
  Send(command.link, std::move(response));
}

void FakeInferenceService::Detach(const Command& command) {
  v1::LinkResponse response;
  auto* reply = response.add_replies();
  reply->set_attachment(command.attachment());
  reply->mutable_detached();
  Send(command.link, std::move(response));
}

namespace {

v1::LinkClaimAnswer* AddClaimReply(const FakeInferenceService::Command& command, v1::LinkResponse* response) {
  v1::LinkClaimAnswer* claim = response->add_replies()->mutable_claim();
  claim->set_claim(command.request.claim().claim());
  return claim;
}

}  // namespace

void FakeInferenceService::Claimed(const Command& command) {
  v1::LinkResponse response;
  AddClaimReply(command, &response)->mutable_claimed();
  Send(command.link, std::move(response));
}

void FakeInferenceService::Exists(const Command& command, const std::string& generation_id) {
  v1::LinkResponse response;
  AddClaimReply(command, &response)->set_generation_id(generation_id);
  Send(command.link, std::move(response));
}

void FakeInferenceService::Held(const Command& command) {
  v1::LinkResponse response;
  AddClaimReply(command, &response)->mutable_held();
  Send(command.link, std::move(response));
}

void FakeInferenceService::SendEvents(const Command& command, std::vector<v1::GenerationEvent> events) {
  v1::LinkResponse response;
  for (v1::GenerationEvent& event : events) {
    auto* link_event = response.add_events();
    link_event->set_attachment(command.attachment());
    *link_event->mutable_event() = std::move(event);
  }
  Send(command.link, std::move(response));
}

}  // namespace runnel::testing
