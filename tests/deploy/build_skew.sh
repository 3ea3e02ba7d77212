#!/usr/bin/env bash
# Builds the three programs of the release before this one, for skew.test.mjs: those of the commit that the file
# skew_base names, from the history of this repository, into build/skew. Without a llama engine and without tests.
#
#   tests/deploy/build_skew.sh
#
# Prints the folder of the binaries as its last line. Ends with 77 if the history is not there (a shallow clone).

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
readonly TARGETS=(runnel-inference runnel-sse runnel-ws) CANNOT=77

main() {
  local base dir
  base=$(<"$here/skew_base")
  dir=$root/build/skew/${base:0:12}
  if [[ ! -f $dir/complete ]]; then
    if ! git -C "$root" cat-file -e "$base^{commit}"; then
      printf 'commit %s is not in this clone: fetch its history (git fetch --unshallow)\n' "$base" >&2
      exit "$CANNOT"
    fi
    mkdir -p "$dir"
    # Without modification times of now, so that a build that was interrupted goes on.
    git -C "$root" archive "$base" | tar -x -C "$dir"
    # The same place of the build tree as in this checkout, so that ccache gives what both have in common.
    (cd "$dir" && cmake --preset release -DRUNNEL_TESTS=OFF -DCMAKE_DISABLE_FIND_PACKAGE_llama=ON) >&2
    NINJA_STATUS='[%f/%t, %es] ' cmake --build "$dir/build/release" --target "${TARGETS[@]}" | sed -u '/^\[[0-9]*[1-9]\//d' >&2
    touch "$dir/complete"
  fi
  printf '%s\n' "$dir/build/release/bin"
}

main "$@"
