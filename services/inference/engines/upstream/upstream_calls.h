#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/inference/engines/upstream/upstream_chunk.h"
#include "services/inference/engines/utf8.h"
#include "services/inference/generation/event.h"
#include "services/inference/generation/json_object_checker.h"

namespace runnel::inference {

// The tool calls of one choice of an upstream: finds out to which call a fragment belongs, in the shapes that servers
// use. Usually a fragment has the index of its call, and the first one its id and name. But servers also leave out
// index or id, use one index for several calls, skip indexes, repeat id and name in each fragment, send a new id with
// each, or send the name after the id. So a fragment with a name begins another call at the same index if its id or
// name is another one, or if the arguments of the call are complete. Not thread-safe.
class UpstreamCalls {
 public:
  // A piece of call `number`, as in PartPiece.
  struct Piece {
    uint32_t number = 0;
    const ToolCall* opening = nullptr;  // valid until the end
    std::string arguments;
  };

  // Absent: there is nothing to append, possibly because of an error.
  std::optional<Piece> Add(const UpstreamFragment& fragment, uint32_t choice, std::string_view response_id);
  // The characters that the ends of the arguments cut, as U+FFFD.
  std::vector<Piece> Finish();

  // What is wrong with the calls so far; empty: nothing.
  enum class Error { kNone, kInvalidName, kTooMany };
  Error error() const { return error_; }

 private:
  struct Call {
    std::optional<uint32_t> index;  // as the server gives it
    std::string server_id;
    ToolCall opening;
    std::optional<uint32_t> number;  // once it has its name
    std::string held;                // arguments before that
    Utf8Joiner joiner;
    JsonObjectChecker checker;
  };
  // The call that the fragment continues, or null.
  Call* Find(const UpstreamFragment& fragment);
  Call* FindByIndex(const UpstreamFragment& fragment);
  bool Continues(const Call& call, const UpstreamFragment& fragment) const;
  // Names the call by the fragment and gives it a number. False if the name is invalid.
  bool Open(const UpstreamFragment& fragment, uint32_t choice, std::string_view response_id, Call* call);

  std::deque<Call> calls_;
  Call* last_ = nullptr;
  uint32_t opened_ = 0;
  Error error_ = Error::kNone;
};

}  // namespace runnel::inference
