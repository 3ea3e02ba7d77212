#include "services/base/flags.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/strings.h"

namespace runnel::base {
namespace {

bool HasOptions(absl::string_view filename) {
  return absl::EndsWith(filename, "options.cc") || absl::EndsWith(filename, "_flags.cc");
}

}  // namespace

void ParseFlags(int argc, char** argv, std::string_view usage) {
  absl::FlagsUsageConfig config;
  config.contains_helpshort_flags = HasOptions;
  config.contains_help_flags = HasOptions;
  config.contains_helppackage_flags = HasOptions;
  config.version_string = [] { return std::string("runnel 0.1.0\n"); };
  // The path of a source file means nothing to users.
  config.normalize_filename = [](absl::string_view filename) {
    return std::string(filename.substr(filename.find_last_of('/') + 1));
  };
  absl::SetFlagsUsageConfig(config);
  absl::SetProgramUsageMessage(ToAbsl(usage));
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    std::fprintf(stderr, "%s: unexpected argument '%s'; see --help\n", rest[0], rest[1]);
    std::exit(2);
  }
}

void PrintFatal(std::string_view process, const absl::Status& status) {
  const std::string line = absl::StrCat(ToAbsl(process), ": ", status.message(), "\n");
  std::fputs(line.c_str(), stderr);
}

}  // namespace runnel::base
