#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace runnel::bench {

// Finds values in JSON by scanning for their keys instead of parsing, so that the client does not cost more than the
// server that it measures. A key inside a text is not found, because its quotes are escaped.

// What follows `"key":` and at most one blank; empty if there is no such key. `quoted_key` has quotes and colon.
std::string_view ValueOf(std::string_view json, std::string_view quoted_key);

// False if there is no such key, or its value is not a number or a string.
bool ReadNumber(std::string_view json, std::string_view quoted_key, uint64_t* number);
bool ReadString(std::string_view json, std::string_view quoted_key, std::string* out);

}  // namespace runnel::bench
