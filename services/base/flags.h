#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace runnel::base {

// Parses the command line into the ABSL_FLAGs of the process, which are defined in files named *options.cc. `--help`
// prints `usage` and every flag with its default, and exits with 0. An unknown flag or a bad value prints one line and
// exits with 1, an argument that is not a flag with 2, because main could do nothing else.
void ParseFlags(int argc, char** argv, std::string_view usage);

// Prints "process: message" on standard error: the last line of a process that cannot start.
void PrintFatal(std::string_view process, const absl::Status& status);

}  // namespace runnel::base
