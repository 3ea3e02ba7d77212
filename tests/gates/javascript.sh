#!/usr/bin/env bash
# Checks all JavaScript in a few seconds: linter, types of the browser library, list of the web files, vendored files.
#
#   tests/gates/javascript.sh [ARGUMENTS OF ESLINT]    for example --fix

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
gates=$root/tests/gates

# npm writes node_modules/.package-lock.json when it has installed; it runs again only if the lock file is newer.
install_packages() {
  if [[ $gates/node_modules/.package-lock.json -nt $gates/package-lock.json ]]; then return; fi
  printf 'javascript: npm packages of tests/gates\n'
  (cd "$gates" && npm ci --no-audit --no-fund --ignore-scripts </dev/null)
}

main() {
  if [[ ${1-} == -h || ${1-} == --help ]]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
  fi
  # shellcheck source=deploy/local/env.sh
  . "$root/deploy/local/env.sh"
  install_packages
  cd "$root"
  "$gates/node_modules/.bin/eslint" --config tests/gates/eslint.config.mjs "$@" .
  node --test tests/gates/*.test.mjs
}

main "$@"
