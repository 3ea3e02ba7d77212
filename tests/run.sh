#!/usr/bin/env bash
# Installs what the tests need, builds, runs every test, and ends with ctest's own summary.
#
#   tests/run.sh [release|asan|tsan|clang] [--skip-browser]
#
#   release         optimised (the default)
#   asan, tsan      under AddressSanitizer with UBSan, or ThreadSanitizer; no browser tests
#   clang           builds everything with clang and -Wthread-safety, then runs only what clang alone can: the fuzz
#                   targets as libFuzzer's, and the checks of the warning itself
#   --skip-browser  no browser tests (ctest label `browser`)

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
preset=release
browser=true

say() { printf 'tests: %s\n' "$*"; }
die() {
  say "$@" >&2
  exit 1
}

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

parse_args() {
  local arg
  for arg in "$@"; do
    case $arg in
      release) preset=release ;;
      asan | tsan | clang) preset=$arg browser=false ;;
      --skip-browser) browser=false ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) die "unknown argument '$arg' (see --help)" ;;
    esac
  done
}

# Almost all tests make a model of their own, so they need llama.cpp but not the one from the network. Those of the llama
# engine are left out if llama.cpp cannot be had, and the comparison with a peer if the model cannot.
install_all() {
  local status=0
  "$root/deploy/local/install.sh" --with-tests </dev/null || status=$?
  case $status in
    0) ;;
    4) say "without the model: THE COMPARISON WITH A PEER IS LEFT OUT" ;;
    3) say "without llama.cpp: THE TESTS OF THE LLAMA ENGINE ARE LEFT OUT" ;;
    *) die "installing failed" ;;
  esac
  # shellcheck source=deploy/local/env.sh
  . "$root/deploy/local/env.sh"
  if $browser; then install_npm_packages tests/e2e/browser; fi
  if [[ $preset == release ]]; then
    install_npm_packages tests/conformance
    install_python_clients
    if go_is_good go; then install_go_modules; fi
  fi
}

# What go.sum pins, and compiled: the test itself then needs no network and no minutes.
install_go_modules() {
  say "Go modules of the deploy tests"
  (cd "$root/tests/deploy" && GOTOOLCHAIN=local go test -run '^$' .)
}

# npm notes in node_modules what it installed; it is asked again only if the lock file is newer.
install_npm_packages() {
  local dir=$root/$1
  if [[ ! -f $dir/package-lock.json || $dir/node_modules/.package-lock.json -nt $dir/package-lock.json ]]; then
    return
  fi
  say "npm packages of $1"
  (cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts </dev/null)
}

# The clients of tests/conformance that are written in Python, every file pinned by hash. A copy of what was installed
# tells whether it still is what is wanted.
install_python_clients() {
  local wanted=$root/tests/conformance/requirements.txt venv
  venv=$(conformance_venv)
  export RUNNEL_PYTHON=$venv/bin/python
  if cmp -s "$wanted" "$venv/installed.txt"; then return; fi
  say "Python packages of tests/conformance"
  rm -rf "$venv"
  if /usr/bin/python3 -m venv "$venv" &&
    "$RUNNEL_PYTHON" -m pip --disable-pip-version-check --no-input install --quiet --no-deps --require-hashes \
      --only-binary :all: --requirement "$wanted" </dev/null; then
    cp "$wanted" "$venv/installed.txt"
  else
    say "THE PYTHON CLIENTS COULD NOT BE INSTALLED: THEIR CONFORMANCE TESTS ARE LEFT OUT"
    unset RUNNEL_PYTHON
  fi
}

build() {
  say "building $preset"
  cmake --preset "$preset"
  if [[ -t 1 ]]; then
    cmake --build "build/$preset"
  else
    # A line every ten steps is enough for a log; what the compiler says stays.
    NINJA_STATUS='[%f/%t, %es] ' cmake --build "build/$preset" | sed -u '/^\[[0-9]*[1-9]\//d'
  fi
}

# The release before this one, which has to work together with this one: see tests/deploy/skew.test.mjs.
build_skew() {
  local status=0
  say "building the release before this one"
  tests/deploy/build_skew.sh || status=$?
  case $status in
    0) ;;
    77) say "THE HISTORY IS NOT HERE: THE TEST OF TWO RELEASES AT ONCE IS LEFT OUT" ;;
    *) die "building the release before this one failed" ;;
  esac
}

run_tests() {
  local -a args=(--output-on-failure --no-tests=error)
  if [[ $preset == clang ]]; then args+=(--label-regex '^(fuzz|static)$'); fi
  if ! $browser; then args+=(--label-exclude '^browser$'); fi
  say "running $preset"
  ctest --test-dir "build/$preset" "${args[@]}"
}

main() {
  parse_args "$@"
  cd "$root"
  install_all
  build
  if [[ $preset == release ]]; then build_skew; fi
  run_tests
}

main "$@"
