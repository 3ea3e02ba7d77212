#pragma once

#include <string>

// The grammar, in llama.cpp's GBNF, of the JSON values that a JSON Schema accepts: llama.cpp's own converter, which its
// installation leaves out. Throws what is derived from std::exception for what is no schema, and for what the converter
// would let pass as "anything". The recursion is as deep as the schema.
std::string llama_json_schema_to_grammar(const std::string& schema);
