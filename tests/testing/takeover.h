#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "runnel/v1/inference.pb.h"
#include "tests/testing/fake_inference_service.h"

// What replicas with a shared log send.
namespace runnel::testing {

// Of the first takeover, unless a test needs several.
inline constexpr uint32_t kEpoch = 65537;

// The event as it is read after a takeover.
v1::GenerationEvent InEpoch(v1::GenerationEvent event, uint32_t epoch = kEpoch);
std::vector<v1::GenerationEvent> InEpoch(std::vector<v1::GenerationEvent> events, uint32_t epoch = kEpoch);
// The gap for a reader that is ahead of a log which a takeover continues behind `seq`. `texts`: of each choice.
v1::GenerationEvent TailLost(uint64_t seq, const std::vector<std::string>& texts, uint32_t epoch = kEpoch);

// Replies to a command.
v1::LinkResponse AttachedInEpoch(const FakeInferenceService::Command& command, const std::string& generation_id,
                                 v1::GenerationStatus status, uint64_t last_seq, uint32_t epoch = kEpoch);
v1::LinkResponse Moved(const FakeInferenceService::Command& command, const std::string& id_prefix);
// Of a Link: these replicas are gone.
v1::LinkResponse Gone(const std::vector<std::string>& id_prefixes);

absl::Status OwnedElsewhere(const std::string& id_prefix);
absl::Status LogUnavailable();
absl::Status Draining();
absl::Status ClaimRequired();

}  // namespace runnel::testing
