#!/usr/bin/env bash
# Installs agent frameworks, and runs agents with tools in each: through the SSE bridge and the upstream engine, to a
# fake model.
#
#   RUNNEL_BIN=build/release/bin tests/conformance/agents/run.sh
#
# The Python packages (600 MB) are kept in $RUNNEL_CACHE. A framework that cannot be installed is left out, and the
# report says so.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
here=$root/tests/conformance/agents
script_name=agents
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"
# shellcheck source=deploy/local/env.sh
. "$root/deploy/local/env.sh"

if [[ ${1-} == -h || ${1-} == --help ]]; then
  usage
  exit 0
fi

# install_python NAME REQUIREMENTS: prints the interpreter that has the packages, or nothing.
install_python() {
  local venv wanted=$here/$2
  venv=$(runnel_cache)/agents/$1
  if ! cmp -s "$wanted" "$venv/installed.txt"; then
    say "installing $1" >&2
    pinned_venv "$venv" "$wanted" --only-binary :all: >&2 && cp "$wanted" "$venv/installed.txt" || return 0
  fi
  printf '%s\n' "$venv/bin/python"
}

export RUNNEL_AGENTS=1 RUNNEL_AGENTS_PYTHON RUNNEL_INSTRUCTOR_PYTHON
mkdir -p "$(runnel_cache)/agents"
install_npm_packages "$here"
RUNNEL_AGENTS_PYTHON=$(install_python frameworks requirements.txt)
RUNNEL_INSTRUCTOR_PYTHON=$(install_python instructor requirements-instructor.txt)
exec node --test "$here/agents.test.mjs"
