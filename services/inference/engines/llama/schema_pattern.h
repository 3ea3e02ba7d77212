#pragma once

#include <string>
#include <string_view>

namespace runnel::inference {

// Rewrites a regular expression of a JSON Schema (ECMA-262) with the syntax that llama.cpp's converter to grammars
// supports: \d, \w, \s, their complements, `.`, escaped characters and whole classes become plain classes. The
// converter puts the matched text between the quotes of a JSON string as it is; so a quote, a backslash and a line end
// become their JSON escapes here, without which the text would not be JSON. Rarer control characters are left out of
// larger classes. A pattern with anything else (anchors inside, back references, Unicode properties) is returned
// unchanged, and the converter rejects it. Linear in the pattern.
std::string PlainPattern(std::string_view pattern);

// Rewrites every `pattern` in a JSON Schema. Recursive, as deep as the schema. Text that is not JSON is returned
// unchanged.
std::string WithPlainPatterns(const std::string& schema);

}  // namespace runnel::inference
