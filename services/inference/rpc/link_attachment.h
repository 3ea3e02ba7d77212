#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "services/inference/rpc/link_reactor.h"

namespace runnel::inference {

// A cursor of one Link into one log. Removes itself from the log when it is destroyed, which must not happen under the
// reactor's lock.
class LinkReactor::Attachment final : public LogReader {
 public:
  Attachment(LinkReactor* link, uint32_t number, std::shared_ptr<Generation> generation, const Reading& reading)
      : link_(link),
        number_(number),
        unmerged_(reading.unmerged),
        generation_(std::move(generation)),
        hold_(generation_),
        cursor(reading.after),
        tail_lost(reading.TailLost(*generation_)) {
    generation_->AddReader(this);
  }
  ~Attachment() override { generation_->RemoveReader(this); }

  std::shared_ptr<Flushable> MarkReady() override { return link_->MarkReady(this); }

  uint32_t number() const { return number_; }
  Generation& generation() const { return *generation_; }
  bool unmerged() const { return unmerged_; }

 private:
  LinkReactor* const link_;
  const uint32_t number_;
  const bool unmerged_;
  const std::shared_ptr<Generation> generation_;
  const Generation::Hold hold_;

 public:
  // Used by the thread that fills the batch only.
  uint64_t cursor;
  bool tail_lost;  // a gap is due, because what the reader has behind the cursor's epoch is not part of the log
  // Guarded by the reactor's mu_. In ready_, or to be added to it when the reply that opens the attachment is written.
  bool ready = false;
};

}  // namespace runnel::inference
