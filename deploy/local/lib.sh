# shellcheck shell=bash
# Functions that the scripts share. A script sets `script_name`, the prefix of its messages, and sources this file.

say() { printf '%s: %s\n' "${script_name:?}" "$*"; }

die() {
  say "$@" >&2
  exit 1
}

# Prints the comment at the head of the script that was started.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[-1]}"; }

# compile FOLDER [CMAKE OPTION...]: builds a build folder of Ninja's. Prints one moving line on a terminal, elsewhere a
# line every ten steps, and compiler messages in full.
compile() {
  if [[ -t 1 ]]; then
    cmake --build "$@"
  else
    NINJA_STATUS='[%f/%t, %es] ' cmake --build "$@" |
      sed -u -e '/^\[[0-9]*[1-9]\//d' -e "s/^\[/$script_name:   [/"
  fi
}

# pinned_venv FOLDER REQUIREMENTS [PIP OPTION...]: makes a virtual environment with the packages that a file pins by
# hash. Uses Debian's Python: another one on PATH may lack the venv module.
pinned_venv() {
  local venv=$1 requirements=$2
  shift 2
  rm -rf "$venv"
  /usr/bin/python3 -m venv "$venv" &&
    "$venv/bin/pip" --disable-pip-version-check --no-input --quiet install --no-deps --require-hashes "$@" \
      --requirement "$requirements" </dev/null
}

# install_npm_packages FOLDER: installs what package-lock.json pins. npm records in node_modules what it has installed,
# so npm runs only if the lock file is newer.
install_npm_packages() {
  local lock=$1/package-lock.json
  if [[ ! -f $lock || $1/node_modules/.package-lock.json -nt $lock ]]; then return; fi
  say "installing npm packages in $1"
  (cd "$1" && npm ci --no-audit --no-fund --ignore-scripts </dev/null)
}
