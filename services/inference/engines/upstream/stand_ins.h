#pragma once

#include <string>
#include <string_view>

namespace runnel::inference {

// The JSON parser accepts UTF-8 only. Other bytes, and halves of surrogate pairs, pass through it as the characters
// U+10FF80 to U+10FFFF, each of which replaces one byte. This is done only for events that the parser has rejected, so
// these characters (private use, at the end of the last plane) are mistaken for bytes only in such an event.

// JSON that may contain such bytes and halves as JSON that the parser accepts, if it is well-formed otherwise.
std::string EncodeStandIns(std::string_view data);

// A string of that JSON with the original bytes.
std::string DecodeStandIns(std::string_view text);

}  // namespace runnel::inference
