#include "services/inference/generation/prepare_pool.h"

#include <utility>

namespace runnel::inference {

PreparePool::PreparePool(uint32_t threads) {
  for (uint32_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

PreparePool::~PreparePool() = default;

void PreparePool::Add(Task task) {
  base::MutexLock lock(&mu_);
  if (stopped_) return;
  tasks_.push_back(std::move(task));
  wake_.NotifyOne();
}

void PreparePool::Stop() {
  std::deque<Task> dropped;  // destroyed after the lock
  {
    base::MutexLock lock(&mu_);
    stopped_ = true;
    dropped.swap(tasks_);
    wake_.NotifyAll();
  }
  threads_.clear();
}

void PreparePool::Run() {
  base::MutexLock lock(&mu_);
  while (true) {
    while (!stopped_ && tasks_.empty()) wake_.Wait(&mu_);
    if (stopped_) return;
    Task task = std::move(tasks_.front());
    tasks_.pop_front();
    mu_.Unlock();
    task();
    task = nullptr;
    mu_.Lock();
  }
}

}  // namespace runnel::inference
