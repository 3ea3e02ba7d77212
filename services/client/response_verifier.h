#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "runnel/v1/inference.pb.h"

namespace runnel::client {

// The output of one generation, joined by the rules of a reader in inference.proto, and checked against `done`. Not
// thread-safe.
class ResponseVerifier {
 public:
  // `after`: the cursor from which the generation is read.
  explicit ResponseVerifier(uint64_t after) : last_seq_(after), from_beginning_(after == 0) {}

  // False if events are missing before this one.
  bool Apply(const v1::GenerationEvent& event);

  // A description of what differs between the output and `done`, or empty if everything was received. Only for a
  // generation that was read from the beginning.
  std::string Check(const v1::Done& done) const;

  uint64_t last_seq() const { return last_seq_; }
  // Of the event last_seq(): see "Epoch" in inference.proto. 0 before any event.
  uint32_t epoch() const { return epoch_; }
  bool from_beginning() const { return from_beginning_; }

  struct Part {
    v1::PartKind kind = v1::PART_KIND_TEXT;
    std::string content;
    std::string id;  // of a tool call
    std::string name;
  };
  using Parts = std::map<uint32_t, Part>;  // by index
  // By choice. A choice without output may be missing.
  const std::map<uint32_t, Parts>& choices() const { return choices_; }

 private:
  void Restart(const v1::GenerationEvent& event);
  void Append(const v1::Delta& delta);

  uint64_t last_seq_;
  uint32_t epoch_ = 0;
  bool from_beginning_;
  std::map<uint32_t, Parts> choices_;
};

}  // namespace runnel::client
