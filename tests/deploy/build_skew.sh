#!/usr/bin/env bash
# Builds the three programs of the previous release for skew.test.mjs: takes the commit that the file skew_base names
# from the history of this repository and builds it in build/skew, without the llama engine and without tests.
#
#   tests/deploy/build_skew.sh
#
# Prints the folder of the binaries as its last line. Exits with 77 if this clone does not have the commit (a shallow
# clone).

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
script_name=skew
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"
readonly TARGETS=(runnel-inference runnel-sse runnel-ws) CANNOT=77

main() {
  local base dir
  base=$(<"$here/skew_base")
  dir=$root/build/skew/${base:0:12}
  if [[ ! -f $dir/complete ]]; then
    if ! git -C "$root" cat-file -e "$base^{commit}"; then
      say "commit $base is not in this clone: fetch its history (git fetch --unshallow)" >&2
      exit "$CANNOT"
    fi
    mkdir -p "$dir"
    # git archive sets the commit's time on all files, so that an interrupted build continues.
    git -C "$root" archive "$base" | tar -x -C "$dir"
    # The build folder has the same relative path as in this checkout, so that ccache reuses what both have in common.
    (cd "$dir" && cmake --preset release -DRUNNEL_TESTS=OFF -DCMAKE_DISABLE_FIND_PACKAGE_llama=ON) >&2
    compile "$dir/build/release" --target "${TARGETS[@]}" >&2
    touch "$dir/complete"
  fi
  printf '%s\n' "$dir/build/release/bin"
}

main "$@"
