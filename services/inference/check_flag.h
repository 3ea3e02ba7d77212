#pragma once

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace runnel::inference {

// InvalidArgument, with the flag's name and range, for a value out of the range.
template <typename T>
absl::Status CheckFlag(const char* name, T value, T least, T most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", name, " is ", value, ": expected ", least, " to ", most));
}

inline absl::Status CheckDuration(const char* name, absl::Duration value, absl::Duration least, absl::Duration most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", name, " is ", absl::FormatDuration(value), ": expected ",
                                                 absl::FormatDuration(least), " to ", absl::FormatDuration(most)));
}

}  // namespace runnel::inference
