#include "llama_json_schema.h"

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>

#include "json-schema-to-grammar.h"
#include "json.h"

std::string llama_json_schema_to_grammar(const std::string& schema) {
  return json_schema_to_grammar(common_json::parse(schema));
}

// If the converter cannot express a part of a schema, it prints a warning and continues. warnings_are_errors.h makes it
// call this function instead of fprintf.
int llama_json_schema_warning(std::FILE*, const char* format, ...) {
  char text[512];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  throw std::invalid_argument(text);
}
