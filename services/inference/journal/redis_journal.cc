#include "services/inference/journal/redis_journal.h"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/mutex.h"
#include "services/base/random.h"
#include "services/base/status_macros.h"
#include "services/inference/generation/generation.h"
#include "services/inference/generation/generation_id.h"
#include "services/inference/journal/journal_reader.h"
#include "services/inference/journal/journal_writer.h"
#include "services/inference/journal/log_format.h"
#include "services/inference/journal/replica_lease.h"
#include "spdlog/spdlog.h"

namespace runnel::inference {
namespace {

// Between two checks of keys that belong to another deployment.
constexpr absl::Duration kFormatRetry = absl::Seconds(10);
// For the last commands of Stop.
constexpr std::chrono::milliseconds kStopTimeout{300};

class ClientLink final : public StoreLink {
 public:
  explicit ClientLink(RedisClient* client) : client_(client) {}
  void Send(std::span<const std::string_view> args, ReplyCallback done) override {
    client_->Send(args, std::move(done));
  }
  void Post(absl::AnyInvocable<void()> function) override { client_->Post(std::move(function)); }

 private:
  RedisClient* const client_;
};

absl::Status Stopped() { return absl::UnavailableError("the journal was stopped"); }

std::string RandomRunId() { return absl::StrCat(absl::Hex(base::Random()(), absl::kZeroPad16)); }

}  // namespace

class RedisJournal::Core final : public Flushable,
                                 public RedisClient::Handler,
                                 public std::enable_shared_from_this<RedisJournal::Core> {
 public:
  explicit Core(Options options);

  absl::Status Init();
  void Start();
  void Stop();

  // Runs the task on the journal's thread; after Stop, with `true`, at once.
  using Task = absl::AnyInvocable<void(bool stopped)>;
  void Run(Task task) EXCLUDES(mu_);
  void Grown(Generation* generation, WakeSet* wake) EXCLUDES(grown_mu_);
  void Flush() override;

  JournalWriter& writer() { return *writer_; }
  JournalReader& reader() { return *reader_; }
  ReplicaLease& lease() { return *lease_; }
  const std::string& id_prefix() const { return id_prefix_; }

 private:
  // On the journal's thread.
  void OnUp(const RedisServerInfo& info) override;
  void OnDown(const RedisFailure& failure) override;
  void CheckStore();
  void OnFormatChecked(const absl::Status& status);
  void Use();
  void RunInbox();
  void WriteGrown();
  void StartTimer();
  void Tick();
  // Sets a flag that another thread waits for.
  void Set(bool* flag) EXCLUDES(mu_);
  std::string Address() const;

  const Options options_;
  JournalMetrics metrics_;
  const JournalKeys keys_;
  std::unique_ptr<ValueCipher> cipher_;
  std::unique_ptr<RedisClient> client_;
  std::unique_ptr<StoreLink> client_link_;
  std::unique_ptr<StoreLink> interceptor_;
  JournalContext context_;
  std::string id_prefix_;  // constant after Start

  // Confined to the journal's thread.
  std::unique_ptr<JournalWriter> writer_;
  std::unique_ptr<JournalReader> reader_;
  std::unique_ptr<ReplicaLease> lease_;
  std::unique_ptr<boost::asio::steady_timer> timer_;
  RedisServerInfo server_;
  bool up_ = false;
  bool usable_ = false;
  bool lease_seen_ = false;
  absl::Duration next_check_ = absl::InfiniteDuration();

  base::Mutex grown_mu_;
  std::vector<std::shared_ptr<Generation>> grown_ GUARDED_BY(grown_mu_);

  base::Mutex mu_;
  base::CondVar changed_;
  std::vector<Task> inbox_ GUARDED_BY(mu_);
  bool stopped_ GUARDED_BY(mu_) = false;
  bool started_ GUARDED_BY(mu_) = false;   // this replica has its lease, or the store cannot be used
  bool fixed_ GUARDED_BY(mu_) = false;     // the id prefix
  bool released_ GUARDED_BY(mu_) = false;  // the lease
};

RedisJournal::Core::Core(Options options)
    : options_(std::move(options)), metrics_(options_.metrics), keys_(options_.log.prefix) {}

absl::Status RedisJournal::Core::Init() {
  ASSIGN_OR_RETURN(cipher_, ValueCipher::Create(options_.log.key_file));
  ASSIGN_OR_RETURN(client_, RedisClient::Create(options_.redis, this));
  client_link_ = std::make_unique<ClientLink>(client_.get());
  context_.link = client_link_.get();
  if (options_.intercept) {
    interceptor_ = options_.intercept(client_link_.get());
    context_.link = interceptor_.get();
  }
  context_.keys = &keys_;
  context_.cipher = cipher_.get();
  context_.options = &options_.log;
  context_.limits = options_.limits;
  context_.metrics = &metrics_;
  context_.clock = options_.clock != nullptr ? options_.clock : &base::Clock::System();
  context_.id_prefix = options_.id_prefix.empty() ? NewIdPrefix() : options_.id_prefix;
  writer_ = std::make_unique<JournalWriter>(&context_);
  reader_ = std::make_unique<JournalReader>(&context_, writer_.get());
  lease_ = std::make_unique<ReplicaLease>(&context_, RandomRunId());
  lease_->OnLost([writer = writer_.get()] { writer->VerifyAll(); });
  timer_ = std::make_unique<boost::asio::steady_timer>(client_->io());
  return absl::OkStatus();
}

void RedisJournal::Core::Start() {
  client_->Start();
  client_->Post([this] { StartTimer(); });
  {
    const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(options_.start_timeout);
    base::MutexLock lock(&mu_);
    while (!started_ && changed_.WaitUntil(&mu_, deadline)) {
    }
  }
  Run([this](bool) {
    lease_->FixPrefix();
    Set(&fixed_);
  });
  base::MutexLock lock(&mu_);
  while (!fixed_) changed_.Wait(&mu_);
  id_prefix_ = context_.id_prefix;
}

void RedisJournal::Core::Set(bool* flag) {
  base::MutexLock lock(&mu_);
  *flag = true;
  changed_.NotifyAll();
}

void RedisJournal::Core::Run(Task task) {
  {
    base::MutexLock lock(&mu_);
    if (!stopped_) {
      inbox_.push_back(std::move(task));
      if (inbox_.size() > 1) return;
      lock.Release();
      return client_->Post([this] { RunInbox(); });
    }
  }
  task(true);
}

void RedisJournal::Core::RunInbox() {
  std::vector<Task> tasks;
  {
    base::MutexLock lock(&mu_);
    tasks.swap(inbox_);
  }
  for (Task& task : tasks) task(false);
}

void RedisJournal::Core::Grown(Generation* generation, WakeSet* wake) {
  JournaledLog& log = JournaledLog::Of(*generation);
  // The log's lock orders this and the reset before the log is read.
  if (log.grown.load(std::memory_order_relaxed) || log.grown.exchange(true, std::memory_order_relaxed)) return;
  base::MutexLock lock(&grown_mu_);
  grown_.push_back(generation->shared_from_this());
  if (grown_.size() == 1) wake->Add(shared_from_this());
}

void RedisJournal::Core::Flush() {
  client_->Post([this] { WriteGrown(); });
}

void RedisJournal::Core::WriteGrown() {
  std::vector<std::shared_ptr<Generation>> grown;
  {
    base::MutexLock lock(&grown_mu_);
    grown.swap(grown_);
  }
  writer_->Write(grown);
}

void RedisJournal::Core::StartTimer() {
  const absl::Duration interval = std::min(LogWait::TickInterval(options_.log.wait), options_.log.lease / 8);
  timer_->expires_after(absl::ToChronoNanoseconds(interval));
  timer_->async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    Tick();
    StartTimer();
  });
}

void RedisJournal::Core::Tick() {
  if (up_ && !usable_ && context_.Now() >= next_check_) CheckStore();
  lease_->Tick();
  writer_->Tick();
  if (lease_->taken() && !std::exchange(lease_seen_, true)) Set(&started_);
}

std::string RedisJournal::Core::Address() const {
  if (!options_.log.address.empty()) return options_.log.address;
  const bool ipv6 = server_.local_address.find(':') != std::string::npos;
  return absl::StrCat(ipv6 ? "[" : "", server_.local_address, ipv6 ? "]:" : ":", options_.log.grpc_port);
}

void RedisJournal::Core::OnUp(const RedisServerInfo& info) {
  server_ = info;
  up_ = true;
  if (info.maxmemory_policy != "noeviction") {
    spdlog::warn("the store of the shared log may evict logs: its maxmemory-policy is {}, set it to noeviction",
                 info.maxmemory_policy);
  }
  if (info.maxmemory == 0) {
    spdlog::info(
        "the store of the shared log has no limit of memory: set maxmemory, so that it rejects writes before "
        "the system kills it");
  }
  CheckStore();
}

void RedisJournal::Core::CheckStore() {
  next_check_ = absl::InfiniteDuration();
  CheckFormat(context_, [this](const absl::Status& status) { OnFormatChecked(status); });
}

void RedisJournal::Core::OnFormatChecked(const absl::Status& status) {
  if (!up_ || usable_) return;
  if (status.ok()) return Use();
  // Without a connection OnDown follows.
  if (absl::IsUnavailable(status)) return;
  metrics_.CountFailure("format");
  spdlog::error("the store of the shared log cannot be used: {}", std::string(status.message()));
  next_check_ = context_.Now() + kFormatRetry;
  Set(&started_);
}

void RedisJournal::Core::Use() {
  usable_ = true;
  metrics_.connected.Set(1);
  spdlog::info("the shared log is in {} {} at {}", server_.valkey ? "Valkey" : "Redis", server_.version,
               server_.address);
  lease_->OnUp(Address());
  reader_->OnUp();
  writer_->OnUp();
}

void RedisJournal::Core::OnDown(const RedisFailure& failure) {
  metrics_.CountFailure(Name(failure.reason));
  metrics_.connected.Set(0);
  up_ = false;
  next_check_ = absl::InfiniteDuration();
  if (std::exchange(usable_, false)) {
    lease_->OnDown();
    reader_->OnDown();
    writer_->OnDown();
  }
  Set(&started_);
}

void RedisJournal::Core::Stop() {
  {
    base::MutexLock lock(&mu_);
    if (stopped_) return;
  }
  const auto deadline = std::chrono::steady_clock::now() + kStopTimeout;
  client_->Post([this] {
    writer_->Stop();
    reader_->Stop();
    lease_->Release([this] { Set(&released_); });
  });
  {
    base::MutexLock lock(&mu_);
    while (!released_ && changed_.WaitUntil(&mu_, deadline)) {
    }
    stopped_ = true;
  }
  client_->Stop();
  // What the thread has not run.
  writer_->Stop();
  reader_->Stop();
  std::vector<Task> tasks;
  {
    base::MutexLock lock(&mu_);
    tasks.swap(inbox_);
  }
  for (Task& task : tasks) task(true);
  base::MutexLock lock(&grown_mu_);
  grown_.clear();
}

absl::StatusOr<std::unique_ptr<RedisJournal>> RedisJournal::Create(Options options) {
  auto core = std::make_shared<Core>(std::move(options));
  RETURN_IF_ERROR(core->Init());
  core->Start();
  return std::unique_ptr<RedisJournal>(new RedisJournal(std::move(core)));
}

RedisJournal::RedisJournal(std::shared_ptr<Core> core) : core_(std::move(core)) {}

RedisJournal::~RedisJournal() { core_->Stop(); }

std::unique_ptr<JournalEntry> RedisJournal::NewEntry() { return std::make_unique<JournaledLog>(); }

void RedisJournal::Create(std::shared_ptr<Generation> generation, JournalMeta meta, CreateCallback done) {
  core_->Run([core = core_.get(), generation = std::move(generation), meta = std::move(meta),
              done = std::move(done)](bool stopped) mutable {
    if (stopped) return done(Stopped());
    core->writer().Create(std::move(generation), std::move(meta), std::move(done));
  });
}

void RedisJournal::Grown(Generation* generation, WakeSet* wake) { core_->Grown(generation, wake); }

void RedisJournal::Load(std::string id, std::optional<std::string> principal, Claim claim, LoadCallback done) {
  core_->Run([core = core_.get(), id = std::move(id), principal = std::move(principal), claim,
              done = std::move(done)](bool stopped) mutable {
    if (stopped) return done(Stopped());
    core->reader().Load(std::move(id), std::move(principal), claim, std::move(done));
  });
}

void RedisJournal::Verify(std::shared_ptr<Generation> generation, VerifyCallback done) {
  core_->Run([core = core_.get(), generation = std::move(generation), done = std::move(done)](bool stopped) mutable {
    if (stopped) return done(Stopped());
    core->writer().Verify(generation, std::move(done));
  });
}

void RedisJournal::HandOver(std::shared_ptr<Generation> generation, HandOverCallback done) {
  core_->Run([core = core_.get(), generation = std::move(generation), done = std::move(done)](bool stopped) mutable {
    if (stopped) return done(Stopped());
    core->writer().HandOver(generation, std::move(done));
  });
}

const std::string& RedisJournal::id_prefix() const { return core_->id_prefix(); }

void RedisJournal::Forget(std::string id, std::string principal, ForgetCallback done) {
  core_->Run([core = core_.get(), id = std::move(id), principal = std::move(principal),
              done = std::move(done)](bool stopped) mutable {
    if (stopped) return done(Stopped());
    core->reader().Forget(std::move(id), std::move(principal), std::move(done));
  });
}

void RedisJournal::Watch(absl::AnyInvocable<void(Gone)> on_gone) {
  core_->Run([core = core_.get(), on_gone = std::move(on_gone)](bool stopped) mutable {
    if (!stopped) core->lease().Watch(std::move(on_gone));
  });
}

void RedisJournal::Stop() { core_->Stop(); }

}  // namespace runnel::inference
