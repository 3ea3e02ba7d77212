#!/usr/bin/env bash
# Checks all JavaScript in a few seconds: linter, types of the browser library, list of the web files, vendored files.
#
#   tests/gates/javascript.sh [ARGUMENTS OF ESLINT]    for example --fix

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1-} == -h || ${1-} == --help ]]; then
  usage
  exit
fi
# shellcheck source=deploy/local/env.sh
. deploy/local/env.sh
install_npm_packages tests/gates
tests/gates/node_modules/.bin/eslint --config tests/gates/eslint.config.mjs "$@" .
node --test tests/gates/*.test.mjs
