#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "services/inference/engines/logged_output.h"
#include "services/inference/engines/stoppable_parts.h"

namespace runnel::inference {

class PreparedScript;

// Where a generation stands that is continued from its log.
struct ScriptedPosition {
  struct Choice {
    uint32_t next = 0;                   // the first token that it lacks
    bool ended = false;                  // in the log
    std::vector<ReplaySink::Rest> rest;  // what the log lacks of the tokens before
  };
  std::vector<Choice> choices;
  std::vector<StoppableParts> stoppable;  // one for each choice if there are stop strings
};

// FailedPrecondition if the log is not one of this script. Its words may have any salt, but not with stop strings: the
// words are made again then, because text that is held is not in the log.
absl::StatusOr<ScriptedPosition> FindPosition(const PreparedScript& prepared, const LogSegment& log);

}  // namespace runnel::inference
