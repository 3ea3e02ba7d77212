#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace runnel::bench {

// What a stream of the mock server sends. The plan is the text of the prompt, because that is the only part of a
// request that every proxy and gateway forwards unchanged.
struct MockPlan {
  uint64_t seed = 1;
  uint32_t tokens = 100;
  double pace = 30;  // tokens per second
  // From 0 to below 1. Tokens are due at this share of each interval of 1 / pace, counted from the start of the clock,
  // so that the phases of streams do not depend on when the streams began. With one phase, all streams step together.
  double phase = 0;
  // The first quarter of the tokens is reasoning, the second text, and the others are the arguments {"t":"..."} of a
  // tool call each. Only in chat completions.
  bool parts = false;
};

std::string PromptOf(const MockPlan& plan);
// False if `prompt` is not the text of a plan, or if a number is out of range.
bool ReadPlan(std::string_view prompt, MockPlan* plan);

// One token of the mock server: `17:1234|word`, with a blank before each but the first, which has both times:
// `0:1200:1234|word`. Times are microseconds of CLOCK_MONOTONIC, which all processes of a machine share.
struct NumberedToken {
  uint32_t index = 0;
  int64_t received_us = 0;  // of the request; in the first token only
  int64_t written_us = 0;
};

// The word of a token, which depends on the arguments only. Some words are not ASCII, or are escaped in JSON. None has
// a blank or a bar.
std::string_view MockWord(uint64_t seed, uint32_t index);

// Appends the token as it stands in a JSON string, or in a JSON string in a JSON string.
void AppendTokenJson(uint64_t seed, const NumberedToken& token, std::string* out);
void AppendTokenJsonTwice(uint64_t seed, const NumberedToken& token, std::string* out);

// Removes the first token from `text`. False if `text` does not begin with a token.
bool TakeToken(std::string_view* text, NumberedToken* token, std::string_view* word);

}  // namespace runnel::bench
