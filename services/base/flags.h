#pragma once

#include <string_view>

#include "absl/status/status.h"

namespace runnel::base {

// Reads the command line into the ABSL_FLAGs of the process, each of which is defined in a file named *options.cc.
// `--help` prints `usage` and every flag with its default and exits 0. An unknown flag, a bad value or an argument that
// is no flag prints one line and exits 1 (2 for an argument), because main can do nothing better about them.
void ParseFlags(int argc, char** argv, std::string_view usage);

// Prints "name: message" on standard error, for the one line with which a process that cannot start ends.
void PrintFatal(std::string_view process, const absl::Status& status);

}  // namespace runnel::base
