#!/usr/bin/env bash
# Makes the root file system of an image: one program and the files it loads, without any other program.
#
#   deploy/docker/rootfs.sh PROGRAM DIRECTORY
#
# Keeps the copyright of each Debian package that a file comes from, and its status where vulnerability scanners look
# for it. Runs on the Debian 12 that built the program; does not need root.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

script_name=rootfs
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"

# Prints the paths of the libraries of a program and of its loader.
libraries_of() {
  local line
  while read -r line; do
    case $line in
      *'not found'*) die "$1: $line" ;;
      *' => /'*) line=${line#* => } ;;
      /*) ;;
      *) continue ;;
    esac
    printf '%s\n' "${line% (*}"
  done < <(ldd "$1")
}

# Prints the names of the packages that files come from. Debian 12 lists a library under /lib or under /usr/lib, so this
# looks up all paths of each file; it does so in a single call, because dpkg-query reads all its lists at each call.
packages_of() {
  local -A owners=()
  local -a real
  local line i
  mapfile -t real < <(realpath "$@")
  while read -r line; do
    owners[${line##*: }]=${line%%[:,]*}
  done < <(dpkg-query --search "$@" "${@/#/\/usr}" "${real[@]}" 2>/dev/null)
  for i in "${!real[@]}"; do
    line=${owners[$1]:-${owners[/usr$1]:-${owners[${real[i]}]:-}}}
    [[ -n $line ]] || die "no Debian package contains $1"
    printf '%s\n' "$line"
    shift
  done | sort -u
}

note_packages() {
  local package
  mkdir -p "$dir/var/lib/dpkg/status.d"
  (cd /usr/share/doc && cp -L --parents "${@/%/\/copyright}" "$dir/usr/share/doc/")
  for package in "$@"; do
    dpkg-query --status "$package" >"$dir/var/lib/dpkg/status.d/$package"
  done
}

# The user, name resolution by files and DNS, and the certificate authorities for HTTPS.
write_etc() {
  mkdir -p "$dir/etc/ssl/certs" "$dir/usr/lib/ssl"
  printf 'root:x:0:0:root:/:/nologin\nnonroot:x:65532:65532:nonroot:/:/nologin\n' >"$dir/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$dir/etc/group"
  printf 'hosts: files dns\n' >"$dir/etc/nsswitch.conf"
  # Use all addresses of a name in /etc/hosts, not only the first.
  printf 'multi on\n' >"$dir/etc/host.conf"
  cp /usr/lib/os-release "$dir/etc/os-release"
  cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/"
  ln -s /etc/ssl/certs/ca-certificates.crt "$dir/usr/lib/ssl/cert.pem"
}

write_notices() {
  local license
  install -D -m 644 -t "$dir/usr/share/doc/runnel" "$root/LICENSE" "$root/NOTICE"
  # shellcheck source=deploy/local/env.sh
  license=$(. "$root/deploy/local/env.sh" && llama_prefix)/LICENSE
  if [[ -f $license ]]; then install -D -m 644 "$license" "$dir/usr/share/doc/llama.cpp/LICENSE"; fi
}

main() {
  if (($# != 2)); then
    usage >&2
    exit 1
  fi
  local program=$1 found
  dir=$2
  dir=$(realpath --canonicalize-missing "$dir")
  if [[ -e $dir ]]; then die "$dir already exists"; fi
  mkdir -p "$dir"/usr/{lib64,share/doc} "$dir"/{dev,proc,sys,models,etc/runnel,etc/runnel-keys}
  ln -s usr/lib "$dir/lib"
  ln -s usr/lib64 "$dir/lib64"
  install -d -m 1777 "$dir/tmp"
  install -D -m 755 "$program" "$dir/usr/bin/$(basename "$program")"
  strip --strip-unneeded "$dir/usr/bin/$(basename "$program")"
  local -a libraries packages
  # Not directly into mapfile, which would ignore a failure.
  found=$(libraries_of "$program")
  mapfile -t libraries <<<"$found"
  # In Debian and in the image, /lib and /lib64 are links to /usr/lib and /usr/lib64.
  cp -L --parents "${libraries[@]/#\/lib/\/usr\/lib}" "$dir"
  found=$(packages_of "${libraries[@]}")
  mapfile -t packages <<<"$found"
  note_packages "${packages[@]}" ca-certificates
  write_etc
  write_notices
}

main "$@"
