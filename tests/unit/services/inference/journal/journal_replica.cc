#include "tests/unit/services/inference/journal/journal_replica.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace runnel::testing {

using inference::Generation;
using inference::Journal;
using inference::RedisJournal;
using inference::StoreLink;
using inference::WakeSet;

void HeldLink::Send(std::span<const std::string_view> args, ReplyCallback done) {
  std::function<void()> function;
  {
    base::MutexLock lock(&mu_);
    names_.emplace_back(args[0]);
    if (!before_.empty() && args[0] == before_) {
      function.swap(function_);
      before_.clear();
    }
    if (!held_.empty() || args[0] == hold_) {
      held_.push_back({{args.begin(), args.end()}, std::move(done)});
      return;
    }
  }
  if (function) function();
  client_->Send(args, std::move(done));
}

void HeldLink::Hold(std::string command) {
  base::MutexLock lock(&mu_);
  hold_ = std::move(command);
}

void HeldLink::Release() {
  client_->Post([this] {
    std::vector<Command> held;
    {
      base::MutexLock lock(&mu_);
      hold_.clear();
      held.swap(held_);
    }
    for (Command& each : held) {
      const std::vector<std::string_view> args(each.args.begin(), each.args.end());
      client_->Send(args, std::move(each.done));
    }
  });
}

size_t HeldLink::held() const {
  base::MutexLock lock(&mu_);
  return held_.size();
}

size_t HeldLink::count(const std::string& command) const {
  base::MutexLock lock(&mu_);
  return static_cast<size_t>(std::count(names_.begin(), names_.end(), command));
}

void HeldLink::Before(std::string command, std::function<void()> function) {
  base::MutexLock lock(&mu_);
  before_ = std::move(command);
  function_ = std::move(function);
}

JournalReplica::JournalReplica(Options options) {
  RedisJournal::Options journal;
  journal.log.wait = options.wait;
  journal.log.lease = absl::Seconds(20);
  journal.log.address = absl::StrCat(options.prefix, ".example:1");
  journal.redis.url.servers = {{"127.0.0.1", options.port}};
  journal.redis.min_backoff = absl::Milliseconds(5);
  journal.redis.max_backoff = absl::Milliseconds(20);
  journal.id_prefix = options.prefix;
  journal.metrics = &metrics_;
  journal.intercept = [this](StoreLink* client) {
    auto link = std::make_unique<HeldLink>(client);
    link_ = link.get();
    return link;
  };
  if (options.change) options.change(&journal);
  auto created = RedisJournal::Create(std::move(journal));
  EXPECT_TRUE(created.ok()) << created.status();
  journal_ = *std::move(created);
}

JournalReplica::~JournalReplica() { journal_->Stop(); }

double JournalReplica::Metric(const std::string& name) {
  const std::string text = metrics_.Expose();
  const size_t at = text.find("\n" + name + " ");
  if (at == std::string::npos) return 0;
  const size_t begin = at + name.size() + 2;
  double value = 0;
  EXPECT_TRUE(absl::SimpleAtod(text.substr(begin, text.find('\n', begin) - begin), &value));
  return value;
}

JournalReplica::GenerationPtr JournalReplica::Make(std::string id, const std::string& principal,
                                                   bool discard_stored_log) {
  Generation::Options options;
  options.id = id.empty() ? inference::NewGenerationId(journal_->id_prefix()) : std::move(id);
  options.principal = principal;
  options.model = "model";
  options.annotation = "note";
  options.kept_input = "input";
  options.discard_stored_log = discard_stored_log;
  options.detach_timeout = absl::InfiniteDuration();
  options.clock = &base::Clock::System();
  options.journal = journal_.get();
  options.metrics = &generation_metrics_;
  options.observer = this;
  generations_.push_back(std::make_shared<Generation>(std::move(options)));
  return generations_.back();
}

std::future<JournalReplica::Created> JournalReplica::CreateLater(const GenerationPtr& generation,
                                                                 const std::string& request_id, uint64_t fingerprint) {
  auto promise = std::make_shared<std::promise<Created>>();
  std::future<Created> result = promise->get_future();
  journal_->Create(generation,
                   {.principal = generation->principal(),
                    .request_id = request_id,
                    .request_fingerprint = fingerprint,
                    .request = "the request"},
                   [promise](auto created) { promise->set_value(std::move(created)); });
  return result;
}

JournalReplica::Created JournalReplica::Create(const GenerationPtr& generation, const std::string& request_id,
                                               uint64_t fingerprint) {
  return CreateLater(generation, request_id, fingerprint).get();
}

JournalReplica::GenerationPtr JournalReplica::Start(const std::string& request_id) {
  GenerationPtr generation = Make();
  const Created created = Create(generation, request_id);
  EXPECT_TRUE(created.ok()) << created.status();
  return generation;
}

absl::Status JournalReplica::Verify(const GenerationPtr& generation) {
  std::promise<absl::Status> promise;
  journal_->Verify(generation, [&](absl::Status status) { promise.set_value(std::move(status)); });
  return promise.get_future().get();
}

JournalReplica::Loaded JournalReplica::Load(const std::string& id, Journal::Claim claim,
                                            std::optional<std::string> principal) {
  std::promise<Loaded> promise;
  journal_->Load(id, std::move(principal), claim, [&](auto loaded) { promise.set_value(std::move(loaded)); });
  return promise.get_future().get();
}

absl::Status JournalReplica::Forget(const std::string& id, const std::string& principal) {
  std::promise<absl::Status> promise;
  journal_->Forget(id, principal, [&](absl::Status status) { promise.set_value(std::move(status)); });
  return promise.get_future().get();
}

absl::Status JournalReplica::HandOver(const GenerationPtr& generation) {
  std::promise<absl::Status> promise;
  journal_->HandOver(generation, [&](absl::Status status) { promise.set_value(std::move(status)); });
  return promise.get_future().get();
}

JournalReplica::GenerationPtr JournalReplica::Continue(const std::string& id, const Journal::Loaded& loaded) {
  GenerationPtr generation = Make(id, loaded.meta.principal);
  const absl::Status restored = const_cast<inference::EventLog&>(generation->log()).Restore(loaded.log);
  EXPECT_TRUE(restored.ok()) << restored;
  return generation;
}

void Append(const std::shared_ptr<Generation>& generation, const std::string& text) {
  WakeSet wake;
  generation->Append(0, text, 1, &wake);
}

void End(const std::shared_ptr<Generation>& generation) {
  WakeSet wake;
  generation->EndAll(inference::FinishReason::kStop, &wake);
}

std::string TextOf(const std::shared_ptr<Generation>& generation) {
  return generation->log().Snapshot().choices[0].text;
}

bool WaitForText(const std::shared_ptr<Generation>& generation, const std::string& text) {
  return WaitUntil([&] { return TextOf(generation) == text; });
}

bool WaitUntilSettled(const std::shared_ptr<Generation>& generation) {
  return WaitUntil([&] { return generation->settled_at() != absl::InfiniteDuration(); });
}

bool WaitUntilFenced(const std::shared_ptr<Generation>& generation) {
  return WaitUntil([&] { return generation->log().fenced(); });
}

}  // namespace runnel::testing
