#!/usr/bin/env bash
# Installs what the tests need, builds, runs the tests, and ends with ctest's summary.
#
#   tests/run.sh [release|asan|tsan|clang] [--skip-browser] [--with-node]
#
#   release         all tests, optimised (the default)
#   asan, tsan      the tests in C++ under AddressSanitizer with UBSan, or under ThreadSanitizer; with asan also
#                   e2e_streams, in which the programs start, drain and exit
#   clang           builds everything with clang and -Wthread-safety, then runs only the tests that need clang: the fuzz
#                   targets with libFuzzer, and the tests of the warning itself
#   --skip-browser  without the browser tests (ctest label `browser`)
#   --with-node     with asan or tsan: also the tests in Node.js that run the real processes (ctest label `node`)

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script_name=tests
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"
preset=release
browser=true
node=false

parse_args() {
  local arg
  for arg in "$@"; do
    case $arg in
      release) preset=release ;;
      asan | tsan | clang) preset=$arg browser=false ;;
      --skip-browser) browser=false ;;
      --with-node) node=true ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) die "unknown argument '$arg' (see --help)" ;;
    esac
  done
}

# Almost all tests build a small model themselves, so they need llama.cpp but not the downloaded model. Without
# llama.cpp the tests of the llama engine are skipped; without the model, the comparison with a peer and the round trip
# of a tool call.
install_all() {
  local status=0
  "$root/deploy/local/install.sh" --with-tests </dev/null || status=$?
  case $status in
    0) ;;
    4) say "without the model: SKIPPING THE COMPARISON WITH A PEER AND THE ROUND TRIP OF A TOOL CALL" ;;
    3) say "without llama.cpp: SKIPPING THE TESTS OF THE LLAMA ENGINE" ;;
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

# Downloads and compiles the modules that go.sum pins, so that the test itself is quick and does not use the network.
install_go_modules() {
  say "installing the Go modules of the deploy tests"
  (cd "$root/tests/deploy" && GOTOOLCHAIN=local go test -run '^$' .)
}

# Installs the clients of tests/conformance that are written in Python, each file pinned by hash. A copy of the
# requirements records what is installed.
install_python_clients() {
  local wanted=$root/tests/conformance/requirements.txt venv
  venv=$(conformance_venv)
  export RUNNEL_PYTHON=$venv/bin/python
  if cmp -s "$wanted" "$venv/installed.txt"; then return; fi
  say "installing the Python packages of tests/conformance"
  if pinned_venv "$venv" "$wanted" --only-binary :all:; then
    cp "$wanted" "$venv/installed.txt"
  else
    say "the Python clients could not be installed: SKIPPING THEIR CONFORMANCE TESTS"
    unset RUNNEL_PYTHON
  fi
}

build() {
  local start=$SECONDS
  say "building $preset"
  cmake --preset "$preset"
  compile "build/$preset"
  if $node; then compile "build/$preset" --target node_test_programs; fi
  say "built $preset in $((SECONDS - start)) s"
}

# Builds the previous release, which must work together with this one: see tests/deploy/skew.test.mjs.
build_skew() {
  local status=0
  say "building the previous release"
  tests/deploy/build_skew.sh || status=$?
  case $status in
    0) ;;
    77) say "without the history: SKIPPING THE TEST OF TWO RELEASES TOGETHER" ;;
    *) die "building the previous release failed" ;;
  esac
}

run_tests() {
  local -a args=(--output-on-failure --no-tests=error)
  local skipped=none
  if ! $browser; then skipped+='|browser'; fi
  if [[ $preset == *san ]] && ! $node; then skipped+='|node'; fi
  if [[ $preset == clang ]]; then args+=(--label-regex '^(fuzz|static)$'); fi
  args+=(--label-exclude "^($skipped)\$")
  # The tests in C++ have ports and servers of their own; those in Node.js compare times.
  if [[ $preset == *san ]] && ! $node; then args+=(--parallel "$(nproc)"); fi
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
