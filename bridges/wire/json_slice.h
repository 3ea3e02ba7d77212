#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

// Finds values in the bytes of a JSON document, for values whose members must keep their order, which the parser does
// not keep. The document must be valid: ParseJsonObject has accepted it. It may begin with a byte order mark, as there.
// Each call takes time linear in its argument.
namespace runnel::bridge {

// Finds `key` in a JSON object, given by its bytes. Returns the bytes of its value; empty if the object has no such
// key.
std::string_view FindMember(std::string_view object, std::string_view key);

// The bytes of each element of `array`, the bytes of an array.
std::vector<std::string_view> ElementsOf(std::string_view array);

// `value` without the white space between its tokens.
std::string Compact(std::string_view value);

// How deeply the objects and arrays of `value` are nested: 0 for a number, 1 for `{}`.
size_t DepthOf(std::string_view value);

}  // namespace runnel::bridge
