#include "bridges/base/task_group.h"

#include "bridges/base/contain.h"

namespace runnel::bridge {

void TaskGroup::Add(Task* task) {
  tasks_.push_back(*task);
  size_.fetch_add(1, std::memory_order_relaxed);
  if (draining_ && !Contain(metrics_, [task] { task->OnDrain(); })) task->OnCut();
}

void TaskGroup::Remove(Task* task) {
  if (!task->is_linked()) return;
  task->unlink();
  size_.fetch_sub(1, std::memory_order_relaxed);
}

template <typename Call>
void TaskGroup::ForEach(Call call) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    Task* task = &*it;
    ++it;  // before the call, which may remove the task; it removes no other
    if (!Contain(metrics_, [&call, task] { call(task); })) (void)Contain(metrics_, [task] { task->OnCut(); });
  }
}

void TaskGroup::Tick(absl::Duration now) {
  now_ = now;
  size_t pending = 0;
  ForEach([now, &pending](Task* task) {
    pending += task->PendingBytes();
    task->OnTick(now);
  });
  pending_bytes_.store(pending, std::memory_order_relaxed);
}

void TaskGroup::Drain() {
  draining_ = true;
  ForEach([](Task* task) { task->OnDrain(); });
}

void TaskGroup::Cut() {
  ForEach([](Task* task) { task->OnCut(); });
}

}  // namespace runnel::bridge
