#pragma once

#include <grpcpp/completion_queue.h>

#include <thread>

#include "services/base/mutex.h"

namespace runnel::bridge {

// What an operation of gRPC calls when it is over: the tag with which it was started.
class GrpcTag {
 public:
  // On the poller's thread. `ok` as grpc::CompletionQueue::Next tells it.
  virtual void OnComplete(bool ok) = 0;

 protected:
  ~GrpcTag() = default;
};

// The thread on which the operations of all calls of a bridge end.
//
// gRPC's own callbacks go through two more threads: one that polls hands each to an executor, and polling on to another
// that polls. A batch of events then wakes four threads before it is with its readers; so, it wakes two. It is one
// thread for all replicas, because several that poll hand that on to each other after each event.
class GrpcPoller {
 public:
  GrpcPoller();
  // No operation may be under way. Not on its own thread.
  ~GrpcPoller();
  GrpcPoller(const GrpcPoller&) = delete;
  GrpcPoller& operator=(const GrpcPoller&) = delete;

  // For operations whose tag is a GrpcTag*, which must live until it is called.
  grpc::CompletionQueue* queue() { return &queue_; }
  // Before the first operation of a new tag: orders its construction before its call on the poller's thread. gRPC does
  // that as well, but by locks that ThreadSanitizer does not see.
  void HandOver() EXCLUDES(mu_) { base::MutexLock lock(&mu_); }

 private:
  void Run() EXCLUDES(mu_);

  base::Mutex mu_;
  grpc::CompletionQueue queue_;
  std::jthread thread_;
};

}  // namespace runnel::bridge
