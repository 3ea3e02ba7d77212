#pragma once

#include <grpcpp/completion_queue.h>

#include <thread>

#include "services/base/mutex.h"

namespace runnel::bridge {

// The tag with which a gRPC operation is started; called when the operation is over.
class GrpcTag {
 public:
  // Called on the poller's thread. `ok` as grpc::CompletionQueue::Next returns it.
  virtual void OnComplete(bool ok) = 0;

 protected:
  ~GrpcTag() = default;
};

// The thread on which the operations of all gRPC calls of a bridge complete.
//
// gRPC's callback API goes through two more threads: the polling thread hands each callback to an executor, and the
// polling to another thread. A batch of events then wakes four threads before it reaches its readers; with this poller
// it wakes two. One thread serves all replicas, because several would hand the polling to each other after each event.
class GrpcPoller {
 public:
  GrpcPoller();
  // No operation may be under way. Must not run on the poller's thread.
  ~GrpcPoller();
  GrpcPoller(const GrpcPoller&) = delete;
  GrpcPoller& operator=(const GrpcPoller&) = delete;

  // For operations whose tag is a GrpcTag*, which must live until it is called.
  grpc::CompletionQueue* queue() { return &queue_; }
  // Call it before the first operation of a new tag: orders the construction of the tag before its call on the poller's
  // thread. gRPC guarantees that too, but with locks that ThreadSanitizer does not see.
  void Publish() EXCLUDES(mu_) { base::MutexLock lock(&mu_); }

 private:
  void Run() EXCLUDES(mu_);

  base::Mutex mu_;
  grpc::CompletionQueue queue_;
  std::jthread thread_;
};

}  // namespace runnel::bridge
