// The functions of llama.cpp's common library that its chat layer calls. The library itself has many more dependencies.
#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "common.h"
#include "log.h"

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

void string_replace_all(std::string& text, const std::string& search, const std::string& replacement) {
  if (search.empty()) return;
  for (size_t at = 0; (at = text.find(search, at)) != std::string::npos; at += replacement.size()) {
    text.replace(at, search.size(), replacement);
  }
}

std::string common_token_to_piece(const llama_vocab* vocabulary, llama_token token, bool special) {
  std::string piece(32, '\0');
  int length = llama_token_to_piece(vocabulary, token, piece.data(), static_cast<int>(piece.size()), 0, special);
  if (length < 0) {
    piece.resize(static_cast<size_t>(-length));
    length = llama_token_to_piece(vocabulary, token, piece.data(), static_cast<int>(piece.size()), 0, special);
  }
  piece.resize(length > 0 ? static_cast<size_t>(length) : 0);
  return piece;
}

// Called only for the delimiters between messages, which are not used.
std::vector<llama_token> common_tokenize(const llama_vocab*, const std::string&, bool, bool) {
  throw std::logic_error("the chat layer does not tokenize");
}

// Nothing is logged: the messages have prompts and outputs.
common_log* common_log_main() { return nullptr; }
void common_log_add(common_log*, ggml_log_level, const char*, ...) {}
int common_log_get_verbosity_thold() { return -1; }

[[noreturn]] void ggml_abort(const char*, int, const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  throw std::logic_error(text);
}
