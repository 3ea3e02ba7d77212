#include "services/inference/engines/upstream/upstream_poller.h"

#include <algorithm>

#include "services/base/prefetch.h"

namespace runnel::inference {

UpstreamPoller::UpstreamPoller() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {}

bool UpstreamPoller::Add(int fd, Reader* reader) {
  epoll_event event{};
  // Writable too, because TLS may have to write before it can read on. While the socket takes everything that is
  // written, this adds no event.
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = reader;
  return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void UpstreamPoller::Remove(int fd, Reader* reader) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  std::erase(again_, reader);
  std::replace(due_.begin(), due_.end(), reader, static_cast<Reader*>(nullptr));
  for (size_t i = 0; i < count_; ++i) {
    if (events_[i].data.ptr == reader) events_[i].data.ptr = nullptr;
  }
}

void UpstreamPoller::PrefetchAfter(size_t i) const {
  // Far enough ahead for main memory: a call takes some microseconds, a line a tenth of one. First the reader itself,
  // then what it asks for.
  constexpr size_t kReader = 4;
  constexpr size_t kItsMemory = 2;
  if (i + kReader < count_)
    base::Prefetch({static_cast<const std::byte*>(events_[i + kReader].data.ptr), kReaderBytes});
  if (i + kItsMemory >= count_) return;
  const auto* const reader = static_cast<const Reader*>(events_[i + kItsMemory].data.ptr);
  if (reader != nullptr) reader->Prefetch();
}

size_t UpstreamPoller::Poll() {
  due_.swap(again_);
  size_t called = due_.size();
  for (size_t i = 0; i < due_.size(); ++i) {
    if (due_[i] != nullptr) due_[i]->OnReadable(false);
  }
  due_.clear();
  do {
    const int count = epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), 0);
    count_ = static_cast<size_t>(std::max(count, 0));
    called += count_;
    for (size_t i = 0; i < count_; ++i) {
      PrefetchAfter(i);
      const bool closed = (events_[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
      if (events_[i].data.ptr != nullptr) static_cast<Reader*>(events_[i].data.ptr)->OnReadable(closed);
    }
  } while (count_ == events_.size());
  count_ = 0;
  return called;
}

}  // namespace runnel::inference
