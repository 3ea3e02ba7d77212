#pragma once

#include <sys/epoll.h>

#include <array>
#include <cstddef>
#include <vector>

#include "services/base/unique_fd.h"

namespace runnel::inference {

// Watches the sockets whose responses have begun, apart from everything else that the loop waits for, so that the loop
// can leave them alone between its ticks. A socket is registered once, edge-triggered: nothing has to be renewed after
// a read, as Asio's waits do. Not thread-safe.
class UpstreamPoller {
 public:
  class Reader {
   public:
    // The socket may have bytes. Reads until it has no more, or calls Again. `closed`: the server has closed it, which
    // is not reported again: so reads to the end.
    virtual void OnReadable(bool closed) noexcept = 0;
    // OnReadable is due soon: asks the processor for the memory that it will touch.
    virtual void Prefetch() const noexcept = 0;

   protected:
    ~Reader() = default;
  };

  // Readable while a socket is.
  UpstreamPoller();
  int fd() const { return epoll_.get(); }

  // `reader` must live until Remove. False if the system refuses.
  [[nodiscard]] bool Add(int fd, Reader* reader);
  void Remove(int fd, Reader* reader);
  // The next Poll calls `reader`, although nothing new may have arrived.
  void Again(Reader* reader) { again_.push_back(reader); }
  bool again() const { return !again_.empty(); }

  // Calls the readers that are due, without waiting. Returns their number.
  size_t Poll();

 private:
  static constexpr size_t kMaxEvents = 512;    // taken from the kernel at a time
  static constexpr size_t kReaderBytes = 256;  // of a reader, prefetched

  // Asks for the memory of the readers that follow the `i`th event.
  void PrefetchAfter(size_t i) const;

  const base::UniqueFd epoll_;
  std::vector<Reader*> again_;
  // Of the Poll that is running.
  std::vector<Reader*> due_;
  std::array<epoll_event, kMaxEvents> events_;
  size_t count_ = 0;
};

}  // namespace runnel::inference
