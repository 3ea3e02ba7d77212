#!/usr/bin/env bash
# Checks every shell script with shellcheck.
#
#   tests/gates/shell.sh

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
need shellcheck

# By their name, or by their first line if the name has no extension.
scripts() {
  files '*.sh'
  files | sed -n '/\.[^/]*$/!p' | tr '\n' '\0' | xargs -0 grep -lE '^#!/.*[/ ](ba|da)?sh( |$)' || true
}
mapfile -t all < <(scripts)
status=0
found=$(printf '%s\0' "${all[@]}" |
  xargs -0 -n 4 -P "$(nproc)" shellcheck --external-sources --format=gcc 2>&1) || status=$?
verdict "${#all[@]}" scripts "$(if ((status != 0)); then printf '%s\n' "${found:-shellcheck failed}"; fi)"
