#pragma once

#include <vector>

#include "bridges/sse/http/static_files.h"

namespace runnel::sse {

// Defined in a file that the build makes of bridges/web (embed_files.cmake).
const std::vector<StaticFile>& EmbeddedFiles();

}  // namespace runnel::sse
