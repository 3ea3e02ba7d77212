#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/base/mutex.h"

namespace runnel::inference {

// A few threads that run tasks in the order in which they were added. A slow request occupies one thread only. The
// caller limits the number of tasks. Thread-safe.
class PreparePool {
 public:
  using Task = absl::AnyInvocable<void()>;

  explicit PreparePool(uint32_t threads);
  // Stop() must have been called.
  ~PreparePool();

  // Runs `task` on one of the threads. After Stop() the task is dropped.
  void Add(Task task) EXCLUDES(mu_);

  // Drops the tasks that have not started, waits for the others and joins the threads. Idempotent.
  void Stop() EXCLUDES(mu_);

 private:
  void Run() EXCLUDES(mu_);

  base::Mutex mu_;
  base::CondVar wake_;
  std::deque<Task> tasks_ GUARDED_BY(mu_);
  bool stopped_ GUARDED_BY(mu_) = false;
  std::vector<std::jthread> threads_;  // constant between construction and Stop()
};

}  // namespace runnel::inference
