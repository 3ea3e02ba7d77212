#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

// For GUARDED_BY and NO_THREAD_SAFETY_ANALYSIS. It lacks the newer names that are defined below.
#include "absl/base/thread_annotations.h"

// A mutex that clang's -Wthread-safety can follow. Not absl::Mutex: the distribution's Abseil is not built for
// ThreadSanitizer, which would see no lock and report every guarded access as a race.

#if defined(__clang__)
#define RUNNEL_THREAD_ANNOTATION(x) __attribute__((x))
#else
#define RUNNEL_THREAD_ANNOTATION(x)
#endif
#define CAPABILITY(x) RUNNEL_THREAD_ANNOTATION(capability(x))
#define SCOPED_CAPABILITY RUNNEL_THREAD_ANNOTATION(scoped_lockable)
#define REQUIRES(...) RUNNEL_THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) RUNNEL_THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) RUNNEL_THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define RELEASE(...) RUNNEL_THREAD_ANNOTATION(release_capability(__VA_ARGS__))

namespace runnel::base {

class CAPABILITY("mutex") Mutex {
 public:
  void Lock() ACQUIRE() { mutex_.lock(); }
  void Unlock() RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds a Mutex for a scope; Release() ends it early, before a callback that must not run under the lock.
class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() RELEASE() {
    if (mutex_ != nullptr) mutex_->Unlock();
  }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Release() RELEASE() {
    mutex_->Unlock();
    mutex_ = nullptr;
  }

 private:
  Mutex* mutex_;
};

// A wait may wake spuriously: call it in a loop that checks the condition.
class CondVar {
 public:
  void Wait(Mutex* mutex) REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock lock(mutex->mutex_, std::adopt_lock);
    cv_.wait(lock);
    lock.release();
  }
  // False if the deadline passed.
  bool WaitUntil(Mutex* mutex, std::chrono::steady_clock::time_point deadline)
      REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    std::unique_lock lock(mutex->mutex_, std::adopt_lock);
    // Waits on the system clock: ThreadSanitizer of GCC 12 does not support pthread_cond_clockwait, which a steady
    // deadline would use, and would consider the mutex held.
    const auto left = deadline - std::chrono::steady_clock::now();
    const auto status = cv_.wait_until(
        lock, std::chrono::system_clock::now() + std::chrono::duration_cast<std::chrono::system_clock::duration>(left));
    lock.release();
    return status == std::cv_status::no_timeout;
  }
  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace runnel::base
