#!/usr/bin/env bash
# Checks that every C++ source is laid out as clang-format 14 lays it out by .clang-format.
#
#   tests/gates/format.sh [--fix]
#
#   --fix  lays them out
#
# A part that is clearer by hand stands between `// clang-format off`, with the reason, and `// clang-format on`.

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
fix=false
if [[ ${1-} == --fix ]]; then fix=true; else no_arguments "$@"; fi
need clang-format-14

mapfile -t sources < <(files '*.cc' '*.cpp' '*.h')
format() { printf '%s\0' "${sources[@]}" | xargs -0 -n 32 -P "$(nproc)" clang-format-14 "$@"; }
if $fix; then
  format -i
  exit
fi
status=0
output=$(format --dry-run --Werror 2>&1) || status=$?
differ=$(sed -n 's/^\([^ :]*\):.*\[-Wclang-format-violations\]$/\1/p' <<<"$output" | sort -u)
if [[ -n $differ ]]; then
  say "to lay them out: tests/gates/format.sh --fix"
elif ((status != 0)); then
  differ=$output
fi
verdict "${#sources[@]}" files "$differ"
