#include "services/base/exposition.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "services/base/metrics.h"

namespace runnel::base {
namespace {

using Clock = std::chrono::steady_clock;

// After creating a text, the thread pauses for this many times as long: scrapers in a loop use at most a quarter of a
// core.
constexpr int kRest = 3;

}  // namespace

Exposition::Exposition(Metrics* metrics) : metrics_(metrics), thread_([this] { Run(); }) {}

Exposition::~Exposition() {
  {
    MutexLock lock(&mu_);
    stopped_ = true;
    wake_.NotifyAll();
  }
  thread_.join();
}

void Exposition::Make(std::function<void(Text)> done) {
  MutexLock lock(&mu_);
  waiting_.push_back(std::move(done));
  wake_.NotifyAll();
}

void Exposition::Run() {
  Clock::time_point rested = Clock::now();
  while (true) {
    std::vector<std::function<void(Text)>> asked;
    {
      MutexLock lock(&mu_);
      while (!stopped_ && waiting_.empty()) wake_.Wait(&mu_);
      while (!stopped_ && Clock::now() < rested) wake_.WaitUntil(&mu_, rested);
      if (stopped_) return;
      asked.swap(waiting_);
    }
    const Clock::time_point begin = Clock::now();
    const Text text = NewText();
    for (const auto& done : asked) done(text);
    const Clock::time_point end = Clock::now();
    rested = end + kRest * (end - begin);
  }
}

Exposition::Text Exposition::NewText() {
  const auto free = std::find_if(texts_.begin(), texts_.end(), [](const auto& text) { return text.expired(); });
  if (free == texts_.end()) {
    if (Text newest = newest_.lock(); newest != nullptr) return newest;
  }
  auto text = std::make_shared<const std::string>(metrics_->Expose());
  if (free != texts_.end()) *free = text;
  newest_ = text;
  return text;
}

}  // namespace runnel::base
