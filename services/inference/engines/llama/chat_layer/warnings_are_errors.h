#pragma once

#include <cstdio>

int llama_json_schema_warning(std::FILE* stream, const char* format, ...);
#define fprintf llama_json_schema_warning
