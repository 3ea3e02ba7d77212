#pragma once

#include <zlib.h>

#include <cstdint>
#include <map>
#include <string>

#include "runnel/v1/inference.pb.h"

namespace runnel::testing {

// The reader's rule of inference.proto, strict: a test must read every event once and in order.
class ReaderRule {
 public:
  explicit ReaderRule(uint64_t after = 0) : last_(after) {}

  // Returns an empty string if the event is the next one, otherwise what is wrong with it.
  std::string Apply(const v1::GenerationEvent& event) {
    const uint64_t first = event.first_seq() == 0 ? event.seq() : event.first_seq();
    if (terminal_) return "an event after the terminal event";
    if (first != last_ + 1) {
      return "event " + std::to_string(first) + ".." + std::to_string(event.seq()) + " after " + std::to_string(last_);
    }
    if (first > event.seq()) return "first_seq is greater than seq";
    if (first != event.seq() && !event.has_delta()) return "a merged event that is not a delta";
    last_ = event.seq();
    if (event.has_delta()) texts_[event.delta().choice()] += event.delta().text();
    if (event.has_done()) {
      terminal_ = true;
      done_ = event.done();
    }
    if (event.has_failed()) terminal_ = failed_ = true;
    return "";
  }

  // Returns an empty string if the texts, read from the beginning, match the lengths and digests of `done`.
  std::string Verify() const {
    if (!terminal_ || failed_) return "no done";
    if (done_.event_count() != last_) return "event count";
    for (const v1::ChoiceEnd& end : done_.choices()) {
      const auto found = texts_.find(end.index());
      const std::string text = found == texts_.end() ? "" : found->second;
      if (end.text_bytes() != text.size()) return "text bytes";
      if (end.text_crc32() != crc32_z(0, reinterpret_cast<const Bytef*>(text.data()), text.size())) return "crc";
    }
    return "";
  }

  uint64_t last() const { return last_; }
  bool terminal() const { return terminal_; }
  bool failed() const { return failed_; }
  const v1::Done& done() const { return done_; }
  const std::map<uint32_t, std::string>& texts() const { return texts_; }

 private:
  uint64_t last_;
  bool terminal_ = false;
  bool failed_ = false;
  v1::Done done_;
  std::map<uint32_t, std::string> texts_;
};

}  // namespace runnel::testing
