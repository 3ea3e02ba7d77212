#!/bin/sh
# Starts the server with redis.conf and the users of users.acl, both beside this file. The files `password` and, if it
# exists, `next-password` in /etc/runnel-log (or in $RUNNEL_LOG_SECRET) have the passwords of the user runnel: both are
# valid, so that the password can be rotated. Further arguments are the server's.

set -eu

here=$(cd "$(dirname "$0")" && pwd)
passwords=
for file in password next-password; do
  file=${RUNNEL_LOG_SECRET:-/etc/runnel-log}/$file
  if [ ! -e "$file" ]; then continue; fi
  # Without the line ends at its end, like the service.
  password=$(cat "$file")
  if [ -n "$password" ]; then passwords="$passwords #$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)"; fi
done
if [ -z "$passwords" ]; then
  echo "start.sh: there is no password (deploy/README.md, Shared log)" >&2
  exit 1
fi

umask 077
acl=${TMPDIR:-/tmp}/users-with-passwords.acl
sed -e '/^#/d' -e "s/PASSWORDS/${passwords# }/" "$here/users.acl" >"$acl"
exec valkey-server "$here/redis.conf" --aclfile "$acl" "$@"
