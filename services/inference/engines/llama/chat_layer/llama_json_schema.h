#pragma once

#include <string>

// The grammar, in llama.cpp's GBNF, of the JSON values that a JSON Schema accepts. Calls llama.cpp's converter, which
// its installation leaves out. Throws an exception derived from std::exception if the schema is invalid, or has a part
// that the converter would accept as "anything". The recursion is as deep as the schema.
std::string llama_json_schema_to_grammar(const std::string& schema);
