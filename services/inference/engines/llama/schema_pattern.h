#pragma once

#include <string>
#include <string_view>

namespace runnel::inference {

// A regular expression of a JSON Schema (ECMA-262), written with what llama.cpp's converter to grammars knows: \d, \w,
// \s, their complements, `.`, escaped characters and whole classes become plain classes. The converter writes what a
// pattern matches between the quotes of a JSON string as it is; so a quote, a backslash and a line end become their
// JSON escapes here, without which the text would not be JSON. Rarer control characters are left out of larger classes.
// What is not understood (anchors inside, back references, Unicode properties) is returned unchanged for the converter
// to refuse. Linear in the pattern.
std::string PlainPattern(std::string_view pattern);

// A JSON Schema with every `pattern` in it made plain; recursive, as deep as the schema. What is not JSON is returned
// unchanged.
std::string WithPlainPatterns(const std::string& schema);

}  // namespace runnel::inference
