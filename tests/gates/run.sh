#!/usr/bin/env bash
# Runs the gates: checks of the sources that do not need a build. Prints the time of each, and ends with 1 if one has
# findings.
#
#   tests/gates/run.sh [GATE...]
#
# Without arguments it runs all of them. Each gate is a script of this folder and can be run alone; see its --help:
#
#   format      layout of C++ sources, by clang-format
#   shell       shell scripts, by shellcheck
#   sizes       at most 400 lines in a file
#   commits     subjects of commits
#   words       wording that has a plainer form
#   arrows      which folder may include from which, and that CMake builds every source
#   doc_links   files, flags, metrics and identifiers that the documents name
#   javascript  scripts of the page, the library and the tests
#   tidy        mistakes in C++ sources, by clang-tidy; the slowest, so the last

set -euo pipefail

# shellcheck source=tests/gates/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
script_name=gates

all=(format shell sizes commits words arrows doc_links javascript tidy)
case ${1-} in
  -h | --help)
    usage
    exit 0
    ;;
esac
if (($# == 0)); then set -- "${all[@]}"; fi

failed=()
for gate in "$@"; do
  script=$gates/$gate.sh
  if [[ ! -x $script ]]; then script=$gates/$gate.py; fi
  [[ -x $script ]] || die "there is no gate '$gate' (see --help)"
  start=${EPOCHREALTIME/[.,]/}
  "$script" </dev/null || failed+=("$gate")
  ms=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
  say "$gate took $((ms / 1000)).$((ms / 100 % 10)) s"
done
if ((${#failed[@]} > 0)); then die "with findings: ${failed[*]}"; fi
