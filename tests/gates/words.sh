#!/usr/bin/env bash
# Checks that no text of the tree uses wording that words.txt lists. words_exceptions.txt lists the lines that may.
#
#   tests/gates/words.sh

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"

readonly EXCEPT=(':!tests/fuzz/corpus/' ':!tests/gates/words*.txt' ':!*package-lock.json' ':!*.sum' ':!LICENSE')
mapfile -t texts < <(files "${EXCEPT[@]}")
findings() {
  local found file part
  found=$(printf '%s\0' "${texts[@]}" | xargs -0 grep -HnIiwF -f <(listed words.txt | cut -f 1) || true)
  while IFS=$'\t' read -r file part; do
    if grep -qF "$part" <<<"$(grep "^$file:" <<<"$found")"; then
      found=$(awk -v file="$file:" -v part="$part" 'index($0, file) != 1 || !index($0, part)' <<<"$found")
    else
      found+=$'\n'"words_exceptions.txt: no such line: $file: $part"
    fi
  done < <(listed words_exceptions.txt)
  sed '/^$/d' <<<"$found"
}
verdict "${#texts[@]}" files "$(findings)"
