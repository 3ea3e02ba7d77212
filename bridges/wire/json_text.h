#pragma once

#include <cstdint>
#include <string>
#include <string_view>

// Writes JSON by hand, for what is written for each token of each reader. All functions append to `out`.
namespace runnel::bridge {

// `text`, quoted and escaped. It must be valid UTF-8, as every proto3 string is.
void AppendJsonString(std::string_view text, std::string* out);

// A member of an object. `key` includes its punctuation, for example `,"seq":`.
void AppendField(std::string_view key, uint64_t number, std::string* out);
void AppendField(std::string_view key, std::string_view text, std::string* out);

}  // namespace runnel::bridge
