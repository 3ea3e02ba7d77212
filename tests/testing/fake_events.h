#pragma once

#include <cstdint>
#include <string>

#include "runnel/v1/inference.pb.h"

namespace runnel::testing {

// A well-formed id whose random part is `letter` 26 times.
std::string FakeId(char letter);

// Events like those of a log.
v1::GenerationEvent StartedEvent(uint64_t seq = 1, const std::string& model = "fake");
v1::GenerationEvent DeltaEvent(uint64_t seq, const std::string& text, uint32_t choice = 0);
v1::GenerationEvent MergedEvent(uint64_t first_seq, uint64_t seq, const std::string& text);
// The `done` of a generation with one choice whose complete text is `text`.
v1::GenerationEvent DoneEvent(uint64_t seq, const std::string& text);
v1::GenerationEvent FailedEvent(uint64_t seq, const std::string& code);

}  // namespace runnel::testing
