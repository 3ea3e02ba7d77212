#!/usr/bin/env bash
# Installs what the benchmark needs, builds, and measures Runnel beside its peers: every row of every table in turn, round
# by round, medians. Writes build/bench/report.md (tables for the README), raw.json and chart.svg.
#
#   tests/bench/run.sh [--quick] [--workloads=W1,W1s,W2,...|all] [--peers=floor,sse,...] [--seconds=4] [--rounds=3]
#
#   --quick   a smoke run of two minutes: few streams, a second each, one round
#
# The default, the main table, takes about a quarter of an hour. Figures of one round may be compared; those of two runs
# only if the machine did nothing else.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
say() { printf 'bench: %s\n' "$*"; }

# What cannot be had leaves its rows out; the driver says which.
install_all() {
  local status=0 model=--without-model
  if [[ " $*" == *engine* || " $*" == *=all* ]]; then model=; fi
  "$root/deploy/local/install.sh" --with-bench ${model:+"$model"} </dev/null || status=$?
  if ((status == 1)); then exit 1; fi
  # shellcheck source=deploy/local/env.sh
  . "$root/deploy/local/env.sh"
  install_npm_packages "$here/peers/node" || say "NO NODE PEER"
  install_npm_packages "$root/tests/e2e/browser" || say "NO BROWSER"
}

install_npm_packages() {
  if [[ $1/package-lock.json -ot $1/node_modules/.package-lock.json ]]; then return; fi
  say "npm packages of ${1#"$root"/}"
  (cd "$1" && npm ci --no-audit --no-fund --ignore-scripts </dev/null)
}

build() {
  say "building"
  cmake --preset release >/dev/null
  cmake --build "$root/build/release" --target bench_all | tail -n 1
  if [[ -n $(command -v go) ]]; then
    "$here/peers/go/build.sh" "$root/build/release/bench" || say "NO GO PEER"
  fi
}

case ${1-} in
  -h | --help)
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac

cd "$root"
install_all "$@"
build
exec /usr/bin/python3 "$here/driver/bench.py" --build "$root/build/release" --out "$root/build/bench" \
  --model "$(model_path)" "$@"
