#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runnel/v1/inference.pb.h"
#include "tests/testing/fake_inference_service.h"

// Events of logs with parts.
namespace runnel::testing {

// A delta of part `part` of choice 0. Of text, `content` is the text.
v1::GenerationEvent PartEvent(uint64_t seq, uint32_t part, v1::PartKind kind, const std::string& content);
// The delta that opens a tool call.
v1::GenerationEvent CallEvent(uint64_t seq, uint32_t part, const std::string& id, const std::string& name,
                              const std::string& arguments = "");
// `log` and the `done` that ends it, with the ends of all parts. Calls are complete unless `reason` is
// FINISH_REASON_LENGTH or FINISH_REASON_CANCELLED.
std::vector<v1::GenerationEvent> EndedBy(std::vector<v1::GenerationEvent> log, v1::FinishReason reason);

// The delta that the service makes of two deltas of one part, of which `second` follows `first`.
v1::GenerationEvent Merge(v1::GenerationEvent first, const v1::GenerationEvent& second);
// Every log that the service may send in place of `log`, with some deltas merged, beginning with `log` itself.
std::vector<std::vector<v1::GenerationEvent>> AllMerges(const std::vector<v1::GenerationEvent>& log);

// Reasoning "Hm.", text "Let me see.", the calls get_weather {"city":"Oslo"} and get_time {}, whose deltas alternate.
std::vector<v1::GenerationEvent> LogOfAllParts();

// The state of a generation with this log, with its texts.
v1::Generation StateOf(const std::vector<v1::GenerationEvent>& log, const std::string& id);

// `attached` for a reader that has the first 8 events of LogOfAllParts, when the log has 9. And its parts as JSON.
v1::LinkResponse AttachedAfterACall(const FakeInferenceService::Command& command, const std::string& generation_id);
inline constexpr char kPartsAfterACall[] =
    R"([{"choice":0,"index":0,"kind":"reasoning","bytes":3},{"choice":0,"index":1,"kind":"text","bytes":11},)"
    R"({"choice":0,"index":2,"kind":"tool_call","id":"call_a","name":"get_weather","bytes":8},)"
    R"({"choice":0,"index":3,"kind":"tool_call","id":"call_b","name":"get_time","bytes":1}])";

}  // namespace runnel::testing
