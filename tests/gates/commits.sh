#!/usr/bin/env bash
# Checks the subject of each commit after the one that commits_base names: at most 72 characters, no full stop at the
# end, no `fixup!` or `squash!`.
#
#   tests/gates/commits.sh
#
# In a clone without that commit (a shallow one) it checks the last commit only, and says so.

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
no_arguments "$@"
readonly MAX_CHARACTERS=72

if base=$(recorded commits_base); then
  range=("$base..HEAD")
else
  say "the history before this commit is not in this clone: only the last commit is checked"
  range=(-1 HEAD)
fi
findings() {
  local hash subject
  while read -r hash subject; do
    if ((${#subject} > MAX_CHARACTERS)); then printf '%s: %d characters: %s\n' "$hash" "${#subject}" "$subject"; fi
    if [[ $subject =~ ^(fixup|squash|amend)! ]]; then printf '%s: to be squashed: %s\n' "$hash" "$subject"; fi
    if [[ $subject == *. ]]; then printf '%s: ends with a full stop: %s\n' "$hash" "$subject"; fi
  done < <(repo log --no-merges --format='%h %s' "${range[@]}")
}
verdict "$(repo rev-list --no-merges --count "${range[@]}")" commits "$(LC_ALL=C.UTF-8 && findings)"
