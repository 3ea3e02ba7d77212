#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/time/time.h"
#include "services/inference/generation/event.h"

namespace runnel::inference {

// The text of token `index` of a choice. Depends on the arguments only, so that a test knows every output in advance.
// Whole words with a blank before each but the first; some are not ASCII. With a salt, the word has salt and index
// before it, as `SALT:INDEX|word`.
std::string ScriptedToken(uint64_t seed, uint32_t choice, uint32_t index, std::string_view salt = {});

// Artificial log-probabilities of the same token, which also depend on the arguments only: it is the likeliest, with a
// probability of 0.5 to 1, and each of the `top` tokens has half of what the previous ones leave.
TokenLogprob ScriptedLogprob(uint64_t seed, uint32_t choice, uint32_t index, uint32_t top, std::string_view salt = {});

// The same token with the time of its append before the word, as `1234567890|word`: microseconds of CLOCK_MONOTONIC,
// which all processes of a machine share. So a load client can measure the delay of each token, even of merged ones.
std::string StampedToken(uint64_t seed, uint32_t choice, uint32_t index, absl::Duration monotonic,
                         std::string_view salt = {});

// A token without its time and its salt: what it would be with neither.
std::string PlainToken(std::string_view token);

}  // namespace runnel::inference
