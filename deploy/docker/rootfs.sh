#!/usr/bin/env bash
# Makes the root file system of an image: one program and all that it loads, and nothing to run beside it.
#
#   deploy/docker/rootfs.sh PROGRAM DIRECTORY
#
# For each Debian package that a file comes from it keeps the copyright, and the status where scanners look for it.
# Runs on the Debian 12 that the program was built on; needs no root.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

die() {
  printf 'rootfs: %s\n' "$*" >&2
  exit 1
}

# Paths of the libraries of a program, and of its loader.
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

# A file by its path in the image, links followed. /lib and /lib64 are links to those of /usr, as in Debian.
install_file() {
  local target=$dir${2/#\/lib/\/usr\/lib}
  install -D -m "$(stat -Lc %a "$1")" "$1" "$target"
}

package_of() {
  local path=$1 owner
  for path in "$1" "/usr$1" "$(realpath "$1")"; do
    if owner=$(dpkg-query --search "$path" 2>/dev/null); then
      printf '%s\n' "${owner%%:*}"
      return
    fi
  done
  die "no package has $1"
}

note_package() {
  local package=$1
  install -D -m 644 "/usr/share/doc/$package/copyright" "$dir/usr/share/doc/$package/copyright"
  mkdir -p "$dir/var/lib/dpkg/status.d"
  dpkg-query --status "$package" >"$dir/var/lib/dpkg/status.d/$package"
}

# The user, names by files and DNS, and the authorities for https.
write_etc() {
  mkdir -p "$dir/etc/ssl/certs" "$dir/usr/lib/ssl"
  printf 'root:x:0:0:root:/:/nologin\nnonroot:x:65532:65532:nonroot:/:/nologin\n' >"$dir/etc/passwd"
  printf 'root:x:0:\nnonroot:x:65532:\n' >"$dir/etc/group"
  printf 'hosts: files dns\n' >"$dir/etc/nsswitch.conf"
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
  if (($# != 2)); then die "want PROGRAM and DIRECTORY"; fi
  local program=$1 library package
  dir=$2
  if [[ -e $dir ]]; then die "$dir is there already"; fi
  mkdir -p "$dir/usr/lib64" "$dir"/{dev,proc,sys,models,etc/runnel,etc/runnel-keys}
  ln -s usr/lib "$dir/lib"
  ln -s usr/lib64 "$dir/lib64"
  install -d -m 1777 "$dir/tmp"
  install -D -m 755 "$program" "$dir/usr/bin/$(basename "$program")"
  strip --strip-unneeded "$dir/usr/bin/$(basename "$program")"
  local -A packages=([ca-certificates]=1)
  while read -r library; do
    install_file "$library" "$library"
    packages[$(package_of "$library")]=1
  done < <(libraries_of "$program")
  for package in "${!packages[@]}"; do note_package "$package"; done
  write_etc
  write_notices
}

main "$@"
