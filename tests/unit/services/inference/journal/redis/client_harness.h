#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/mutex.h"
#include "services/base/strings.h"
#include "services/inference/journal/redis/redis_client.h"
#include "tests/testing/redis_server.h"

namespace runnel::inference {

// "+OK", "-ERR ...", ":1", "nil", "text" or "[a, b]".
inline std::string ToText(RedisReply reply) {
  switch (reply.type()) {
    case RedisReply::Type::kNil:
      return "nil";
    case RedisReply::Type::kInteger:
      return absl::StrCat(":", reply.integer());
    case RedisReply::Type::kString:
      return std::string(reply.text());
    case RedisReply::Type::kStatus:
      return absl::StrCat("+", base::ToAbsl(reply.text()));
    case RedisReply::Type::kError:
      return absl::StrCat("-", base::ToAbsl(reply.text()));
    case RedisReply::Type::kArray:
      break;
  }
  std::string text = "[";
  for (size_t i = 0; i < reply.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", ToText(reply[i]));
  return text + "]";
}

inline std::string ToText(const absl::StatusOr<RedisReply>& reply) {
  return reply.ok() ? ToText(*reply) : absl::StatusCodeToString(reply.status().code());
}

inline RedisOptions OptionsFor(const std::string& url) {
  RedisOptions options;
  options.url = ParseRedisUrl(url).value();
  options.min_backoff = absl::Milliseconds(5);
  options.max_backoff = absl::Milliseconds(20);
  return options;
}

// Of this process alone.
inline const std::string& TestFolder() {
  struct Folder {
    Folder() { std::filesystem::create_directories(path); }
    ~Folder() { std::filesystem::remove_all(path); }
    const std::string path = absl::StrCat(::testing::TempDir(), "redis_test_", getpid());
  };
  static const Folder folder;
  return folder.path;
}

inline std::string WriteFile(const std::string& name, std::string_view content) {
  const std::string path = TestFolder() + "/" + name;
  std::ofstream(path) << content;
  return path;
}

// A client, and what it has reported.
class ClientHarness final : public RedisClient::Handler {
 public:
  explicit ClientHarness(RedisOptions options) {
    auto created = RedisClient::Create(std::move(options), this);
    EXPECT_TRUE(created.ok()) << created.status();
    if (!created.ok()) return;
    client_ = std::move(*created);
    client_->Start();
  }
  ~ClientHarness() override {
    // Posted functions use the pointer until then.
    if (client_ != nullptr) client_->Stop();
  }

  RedisClient* client() { return client_.get(); }

  void OnUp(const RedisServerInfo& info) override {
    base::MutexLock lock(&mu_);
    infos_.push_back(info);
    events_ += "up ";
    changed_.NotifyAll();
  }
  void OnDown(const RedisFailure& failure) override {
    base::MutexLock lock(&mu_);
    failures_.push_back(failure);
    events_ += "down ";
    changed_.NotifyAll();
  }

  // Waits until it was up `count` times.
  bool WaitUp(size_t count = 1) {
    return Wait([this, count]() NO_THREAD_SAFETY_ANALYSIS { return infos_.size() >= count; });
  }
  // Waits for a failure for this reason with this text in its message, behind the first `after` ones; returns the
  // message.
  std::string WaitDown(RedisFailure::Reason reason, std::string_view text = "", size_t after = 0) {
    std::string message;
    const bool seen = Wait([&]() NO_THREAD_SAFETY_ANALYSIS {
      for (size_t i = after; i < failures_.size(); ++i) {
        message = std::string(failures_[i].status.message());
        if (failures_[i].reason == reason && message.find(text) != std::string::npos) return true;
      }
      return false;
    });
    EXPECT_TRUE(seen) << Name(reason) << " '" << text << "' is not among " << FailureText();
    return message;
  }
  size_t failures() {
    base::MutexLock lock(&mu_);
    return failures_.size();
  }
  std::string events() {
    base::MutexLock lock(&mu_);
    return events_;
  }
  RedisServerInfo info() {
    base::MutexLock lock(&mu_);
    return infos_.empty() ? RedisServerInfo() : infos_.back();
  }

  // Runs `function` on the client's thread, and waits until it has run.
  void RunOnThread(std::function<void()> function) {
    bool ran = false;
    client_->Post([&] {
      function();
      base::MutexLock lock(&mu_);
      ran = true;
      changed_.NotifyAll();
    });
    EXPECT_TRUE(Wait([&ran] { return ran; }));
  }
  // Sends a command without waiting; its reply goes to replies().
  void Send(std::vector<std::string> args) {
    client_->Post([this, args = std::move(args)] { SendNow(args); });
  }
  void SendNow(const std::vector<std::string>& args) {
    const std::vector<std::string_view> views(args.begin(), args.end());
    client_->Send(views, [this](absl::StatusOr<RedisReply> reply) {
      base::MutexLock lock(&mu_);
      replies_.push_back(ToText(reply));
      events_ += "reply ";
      changed_.NotifyAll();
    });
  }
  std::vector<std::string> WaitReplies(size_t count) {
    EXPECT_TRUE(Wait([this, count]() NO_THREAD_SAFETY_ANALYSIS { return replies_.size() >= count; }));
    base::MutexLock lock(&mu_);
    return replies_;
  }
  // Sends a command and waits for the reply, which is the only one that is awaited.
  std::string Call(std::vector<std::string> args) {
    size_t before = 0;
    {
      base::MutexLock lock(&mu_);
      before = replies_.size();
    }
    Send(std::move(args));
    const std::vector<std::string> replies = WaitReplies(before + 1);
    return replies.size() > before ? replies[before] : "no reply";
  }

 private:
  template <typename Condition>
  bool Wait(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    base::MutexLock lock(&mu_);
    while (!condition()) {
      if (!changed_.WaitUntil(&mu_, deadline)) return condition();
    }
    return true;
  }
  // Of each reason the first message.
  std::string FailureText() {
    base::MutexLock lock(&mu_);
    std::map<RedisFailure::Reason, std::string> messages;
    for (const RedisFailure& failure : failures_) messages.emplace(failure.reason, failure.status.ToString());
    std::string text;
    for (const auto& [reason, message] : messages) absl::StrAppend(&text, message, "; ");
    return text;
  }

  base::Mutex mu_;
  base::CondVar changed_;
  std::vector<RedisServerInfo> infos_ GUARDED_BY(mu_);
  std::vector<RedisFailure> failures_ GUARDED_BY(mu_);
  std::vector<std::string> replies_ GUARDED_BY(mu_);
  std::string events_ GUARDED_BY(mu_);
  std::unique_ptr<RedisClient> client_;
};

// Starts a server, or skips the test if it is not installed. For `server`, a unique_ptr.
#define START_REDIS(server, ...)                                                                                    \
  if (::runnel::testing::RedisServer::Program(::runnel::testing::RedisServer::Options(__VA_ARGS__).kind).empty()) { \
    GTEST_SKIP() << "the server is not installed: see deploy/local/install.sh --with-tests";                        \
  }                                                                                                                 \
  auto server##_started = ::runnel::testing::RedisServer::Start(__VA_ARGS__);                                       \
  ASSERT_TRUE(server##_started.ok()) << server##_started.status();                                                  \
  const std::unique_ptr<::runnel::testing::RedisServer> server = *std::move(server##_started)

}  // namespace runnel::inference
