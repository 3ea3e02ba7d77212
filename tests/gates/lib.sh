# shellcheck shell=bash
# Functions that the gates share. Source it first: it changes to the root of the checkout.

gates=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$gates/../.." && pwd)
script_name=$(basename "${BASH_SOURCE[-1]}" .sh)
# shellcheck source=deploy/local/lib.sh
. "$root/deploy/local/lib.sh"
cd "$root" || exit

# Git, although another user may own the checkout, for example in a container.
repo() { git -c safe.directory="$root" "$@"; }

# files PATTERN...: the files of the checkout that match Git's patterns, uncommitted ones included.
files() {
  local file
  while IFS= read -r file; do
    if [[ -f $file ]]; then printf '%s\n' "$file"; fi
  done < <(repo ls-files --cached --others --exclude-standard --deduplicate -- "$@")
}

# listed FILE: the lines of a list of exceptions, without comments.
listed() { sed -e 's/#.*//' -e 's/ *$//' -e '/^$/d' "$gates/$1"; }

# recorded FILE: the commit that a file of this folder names; fails if it is not in this clone.
recorded() {
  local commit
  commit=$(<"$gates/$1")
  repo cat-file -e "$commit^{commit}" 2>/dev/null && printf '%s\n' "$commit"
}

need() { command -v "$1" >/dev/null || die "$1 is missing: run deploy/local/install.sh --with-tests"; }

# no_arguments "$@": for a gate without options.
no_arguments() {
  case ${1-} in
    '') ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) die "unknown argument '$1' (see --help)" ;;
  esac
}

# verdict COUNT WHAT FINDINGS: prints the findings, if any, and ends the gate.
verdict() {
  if [[ -z $3 ]]; then
    say "$1 $2: no findings"
    exit 0
  fi
  printf '%s\n' "$3"
  say "$(wc -l <<<"$3") findings in $1 $2" >&2
  exit 1
}
