#!/usr/bin/env bash
# Checks C++ sources with clang-tidy 14 and the checks of .clang-tidy. About 8 s of one core for each file.
#
#   tests/gates/tidy.sh [--all]
#
#   --all  checks every source, and if there are no findings writes the last commit into tidy_base
#
# Without --all it checks the sources that changed since the commit in tidy_base, uncommitted ones included: at most 40,
# those that changed last. For a header it checks the .cc file of the same name, or else one that includes it. In a
# clone without that commit (a shallow one) it checks what the last commit changed, if that can be seen, and says so.

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
readonly MAX_FILES=40 BUILD=build/clang
export DATABASE=$BUILD/tidy

# clang-tidy 14 understands the command lines of the preset `clang`. A source that several targets compile is checked
# once, as the first of them compiles it: the second is a fuzz target.
prepare() {
  mkdir -p "$DATABASE"
  # shellcheck source=deploy/local/env.sh
  . deploy/local/env.sh
  { cmake --preset clang && cmake --build "$BUILD" --target runnel_generated; } >"$DATABASE/log" 2>&1 || {
    tail -n 20 "$DATABASE/log" >&2
    die "configuring failed; the whole log is in $DATABASE/log"
  }
  python3 - "$BUILD" "$DATABASE" <<'END'
import json, os, sys
build, database = sys.argv[1:]
commands = {}
with open(f"{build}/compile_commands.json") as file:
    for command in json.load(file):
        commands.setdefault(os.path.relpath(command["file"]), command)
with open(f"{database}/compile_commands.json", "w") as file:
    json.dump(list(commands.values()), file)
with open(f"{database}/sources", "w") as file:
    file.writelines(f"{name}\n" for name in sorted(commands) if not name.startswith("build/"))
END
}

# Files that changed, the last first.
changed() {
  local base
  repo diff --name-only HEAD
  repo ls-files --others --exclude-standard
  if base=$(recorded tidy_base); then
    repo log --format= --name-only "$base..HEAD"
  elif repo rev-parse --quiet --verify HEAD^ >/dev/null; then
    say "the history before this commit is not in this clone: only the last commit is checked" >&2
    repo show --format= --name-only HEAD
  else
    say "this clone has one commit, so what changed is unknown: NOTHING THAT IS COMMITTED IS CHECKED (see --all)" >&2
  fi
}

first_user_of() { tr '\n' '\0' <"$DATABASE/sources" | xargs -0 grep -lsF "#include \"$1\"" | sed -n 1p || true; }

# The sources to check for the changed files on standard input.
sources_of() {
  local file source
  while read -r file; do
    case $file in
      *.cc) source=$file ;;
      *.h)
        source=${file%.h}.cc
        if [[ ! -f $source ]]; then source=$(first_user_of "$file"); fi
        ;;
      *) continue ;;
    esac
    if grep -qxF "$source" "$DATABASE/sources"; then printf '%s\n' "$source"; fi
  done
}

# One line for each finding. Several sources report the same finding of a header.
# shellcheck disable=SC2317  # xargs calls it
check_one() {
  local output status=0
  output=$(clang-tidy-14 -p "$DATABASE" --quiet "$1" 2>&1) || status=$?
  if ((status == 0)); then return; fi
  grep -E '(error|warning): ' <<<"$output" || printf '%s: clang-tidy ended with status %d\n' "$1" "$status"
}
export -f check_one

all=false
if [[ ${1-} == --all ]]; then all=true; else no_arguments "$@"; fi
need clang-tidy-14
prepare
if $all; then
  mapfile -t sources <"$DATABASE/sources"
else
  mapfile -t sources < <(changed | awk '!seen[$0]++' | sources_of | awk '!seen[$0]++')
fi
total=${#sources[@]}
if ((total == 0)); then verdict 0 files ""; fi
if ! $all && ((total > MAX_FILES)); then
  sources=("${sources[@]:0:MAX_FILES}")
  say "$total sources changed since the commit in tidy_base: only the last $MAX_FILES are checked (see --all)"
fi
# shellcheck disable=SC2016  # the shell that xargs starts expands it
found=$(printf '%s\0' "${sources[@]}" | xargs -0 -r -n 1 -P "$(nproc)" bash -c 'check_one "$1"' check_one |
  sed "s#^$root/##" | sort -u)
if $all && [[ -z $found ]]; then
  repo rev-parse HEAD >"$gates/tidy_base"
  say "commit tests/gates/tidy_base: changes are compared with it from now on"
fi
verdict "${#sources[@]}" files "$found"
