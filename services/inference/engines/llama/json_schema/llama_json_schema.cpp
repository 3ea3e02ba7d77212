#include "llama_json_schema.h"

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

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

// The functions of common.cpp that the converter calls; common.cpp itself has many more dependencies.
std::string string_join(const std::vector<std::string>& values, const std::string& separator) {
  std::string joined;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) joined += separator;
    joined += values[i];
  }
  return joined;
}

std::vector<std::string> string_split(const std::string& text, const std::string& delimiter) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(delimiter, begin)) != std::string::npos; begin = end + delimiter.size()) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::string string_repeat(const std::string& text, size_t times) {
  std::string repeated;
  for (; times > 0; --times) repeated += text;
  return repeated;
}
