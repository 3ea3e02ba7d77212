#!/usr/bin/env bash
# Runs a test with the three programs confined as in their pods: in the root file system of their image, read-only, as
# user 65532 without capabilities, as process 1, with a small /tmp and, if cgroups are available, with the memory limit
# of the manifests.
#
#   RUNNEL_BIN=FOLDER tests/deploy/confined.sh COMMAND...
#
# The command gets another RUNNEL_BIN, and RUNNEL_CONFINED: a folder with a file NAME.pid for each running program, and
# the file `hosts` that the programs see as /etc/hosts. Exits with the command's status, or with 77 if the kernel does
# not permit confinement.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
deploy=$here/../../deploy
readonly PROGRAMS=(inference sse ws) CANNOT=77

cannot() {
  printf 'SKIPPED: %s\n' "$*"
  exit "$CANNOT"
}

# shellcheck disable=SC2317  # a trap calls it
clean() {
  local name
  for name in "${PROGRAMS[@]}"; do
    if [[ -d ${RUNNEL_CGROUP:-}/$name ]]; then rmdir "$RUNNEL_CGROUP/$name" || true; fi
  done
  if [[ -n ${RUNNEL_CGROUP:-} ]]; then rmdir "$RUNNEL_CGROUP" || true; fi
  rm -rf "$dir"
}

# Prints the folder of this shell's cgroup that can limit memory.
own_cgroup() {
  local line
  while IFS=: read -r -a line; do
    case ${line[1]} in
      memory) printf '/sys/fs/cgroup/memory%s\n' "${line[2]}" ;;
      '') if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then printf '/sys/fs/cgroup%s\n' "${line[2]}"; fi ;;
    esac
  done </proc/self/cgroup
}

# limit_memory NAME MIB
limit_memory() {
  local cgroup=$RUNNEL_CGROUP/$1 file
  mkdir -p "$cgroup" || return
  for file in memory.max memory.limit_in_bytes; do
    if [[ -w $cgroup/$file ]]; then
      echo $(($2 << 20)) >"$cgroup/$file"
      return
    fi
  done
  return 1
}

limit_all() {
  local name mib own
  own=$(own_cgroup | head -n 1)
  RUNNEL_CGROUP=$own/runnel-test-$$
  if [[ -z $own ]] || ! mkdir "$RUNNEL_CGROUP" 2>/dev/null; then
    RUNNEL_CGROUP=
    return 1
  fi
  for name in "${PROGRAMS[@]}"; do
    mib=$(sed -n '/ limits:/,/ memory:/s/.* memory: \([0-9]*\)Mi$/\1/p' "$deploy/kubernetes/base/$name.yaml")
    limit_memory "$name" "$mib" 2>/dev/null || return
  done
}

prepare() {
  local name
  mkdir "$dir/bin" "$dir/rootfs"
  printf '127.0.0.1 localhost\n' >"$dir/hosts"
  for name in "${PROGRAMS[@]}"; do
    "$deploy/docker/rootfs.sh" "$RUNNEL_BIN/runnel-$name" "$dir/rootfs/$name"
    cp "$deploy/kubernetes/base/config/$name.flags" "$dir/rootfs/$name/etc/runnel/base.flags"
    # The mount point of the file.
    touch "$dir/rootfs/$name/etc/hosts"
    ln -s "$here/confine.sh" "$dir/bin/runnel-$name"
  done
  ln -s "$RUNNEL_BIN/runnel-client" "$dir/bin/runnel-client"
  # Other users need access.
  chmod 755 "$dir"
}

main() {
  command -v bwrap >/dev/null || cannot "bubblewrap is not installed"
  dir=$(mktemp -d)
  trap clean EXIT
  prepare
  export RUNNEL_CONFINED=$dir RUNNEL_CGROUP=
  "$dir/bin/runnel-sse" --version >/dev/null || cannot "this kernel does not let users create namespaces"
  if ! limit_all; then
    echo "no memory limit: cannot create a cgroup"
    RUNNEL_CGROUP=
  fi
  local status=0
  RUNNEL_BIN=$dir/bin "$@" || status=$?
  exit "$status"
}

main "$@"
