#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "services/inference/engines/llama/llama_generation.h"
#include "services/inference/engines/llama/llama_model.h"
#include "services/inference/generation/log_segment.h"

namespace runnel::inference {

// Whether the log has the token ids of its output.
bool HasTokenIds(const LogSegment& log);

// Makes `job`, which is as for a new generation, continue the log: each choice gets the tokens that the log has, and
// with them the state of its sampler and of its output. All of that follows from the tokens, so it is made again, and
// compared with the output in the log. FailedPrecondition if they differ. `context`: of one choice, in tokens.
//
// Takes about as long as the output took without its decoding: a millisecond for hundreds of tokens, and more with a
// grammar or with tools.
// The usage of several outputs with a syntax counts tokens that are in no delta. If the log ends between the usage and
// the end of the last choice, those of this choice count twice.
absl::Status ContinueFromLog(const LogSegment& log, const LlamaModel& model, uint32_t context, LlamaJob* job);

}  // namespace runnel::inference
