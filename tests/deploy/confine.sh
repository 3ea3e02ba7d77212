#!/usr/bin/env bash
# Runs one program confined as confined.sh describes. confined.sh makes a link to this script with the program's name,
# and calls that. Passes SIGTERM to the program, and exits with the program's status.

set -euo pipefail

name=$(basename "$0")
short=${name#runnel-}
info=$RUNNEL_CONFINED/$name.$$.info
started=

: >"$info"
if [[ -n $RUNNEL_CGROUP ]]; then echo $$ >"$RUNNEL_CGROUP/$short/cgroup.procs"; fi
as_nobody=()
if ((EUID == 0)); then
  as_nobody=(setpriv --reuid=65532 --regid=65532 --clear-groups --inh-caps=-all --no-new-privs)
fi

# Prints the program's process id in this namespace, once bubblewrap has reported it.
program() {
  until grep -q child-pid "$info"; do kill -0 "$started" && sleep 0.01 || return; done
  grep -o '[0-9]\+' <(grep -o '"child-pid": [0-9]*' "$info")
}

trap 'kill -TERM "$(program)" 2>/dev/null || true' TERM

"${as_nobody[@]}" bwrap --unshare-user --uid 65532 --gid 65532 --unshare-pid --as-pid-1 --unshare-ipc --unshare-uts \
  --die-with-parent --cap-drop ALL --ro-bind "$RUNNEL_CONFINED/rootfs/$short" / --proc /proc --dev /dev \
  --size $((16 << 20)) --tmpfs /tmp --ro-bind "$RUNNEL_CONFINED/hosts" /etc/hosts --remount-ro /dev \
  --info-fd 3 "/usr/bin/$name" "$@" 3>"$info" &
started=$!
printf '%s\n' "$(program)" >"$RUNNEL_CONFINED/$name.pid" || true

# A trap interrupts `wait` while the program is still running.
status=0
while :; do
  wait "$started" && status=0 || status=$?
  kill -0 "$started" 2>/dev/null || break
done
rm -f "$info"
exit "$status"
