#!/usr/bin/env bash
# Checks that no source has more than 400 lines. sizes.txt lists the exceptions.
#
#   tests/gates/sizes.sh

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
readonly MAX_LINES=400

readonly PATTERNS=(
  '*.cc' '*.cpp' '*.h' '*.js' '*.mjs' '*.ts' '*.css' '*.html' '*.py' '*.go' '*.proto' '*.sh' '.ci/*' '*.cmake'
  '*CMakeLists.txt'
)
mapfile -t sources < <(files "${PATTERNS[@]}")
findings() {
  local lines file
  while read -r lines file; do
    if ((lines > MAX_LINES)) && ! listed sizes.txt | grep -qxF "$file"; then
      printf '%s: %d lines, at most %d are allowed\n' "$file" "$lines" "$MAX_LINES"
    fi
  done < <(printf '%s\0' "${sources[@]}" | xargs -0 wc -l | sed '/ total$/d')
  while read -r file; do
    if [[ ! -f $file ]] || (($(wc -l <"$file") <= MAX_LINES)); then
      printf 'sizes.txt: %s needs no exception\n' "$file"
    fi
  done < <(listed sizes.txt)
}
verdict "${#sources[@]}" files "$(findings)"
