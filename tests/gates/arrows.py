#!/usr/bin/env python3
"""Checks that folders include only what arrows.txt allows, without circles, and that CMake builds every C++ source.

   tests/gates/arrows.py

CMake checks what a target links, not which headers it includes. A folder of services/ or bridges/ that holds C++ sources
needs a line in arrows.txt and its own CMakeLists.txt; every .cc file is named in one.
"""

import os
import re
import subprocess
import sys

GATES = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(GATES))
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
# Built by deploy/local/install.sh against the sources of llama.cpp; a CMake project of its own.
OUTSIDE = "services/inference/engines/llama/chat_layer"


def checkout_files():
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(file for file in set(output.splitlines()) if os.path.isfile(file))


def read_table():
    """{folder: ({allowed folder}, [forbidden beginning])}"""
    table = {}
    with open(os.path.join(GATES, "arrows.txt"), encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("#") or not line.strip():
                continue
            folder, entries = line.split(":")
            entries = entries.split()
            table[folder] = ({entry for entry in entries if entry[0] != "!"},
                             [entry[1:] for entry in entries if entry[0] == "!"])
    return table


def read_includes(file):
    """[(line number, header)]"""
    with open(file, encoding="utf-8") as lines:
        matches = ((number, INCLUDE.match(line)) for number, line in enumerate(lines, 1))
        return [(number, match[1] or match[2]) for number, match in matches if match]


def folder_of(header):
    return "proto" if header.endswith(".pb.h") else os.path.dirname(header)


def is_allowed(folder, allowed):
    return any(folder == entry or entry.endswith("/**") and folder.startswith(entry[:-2]) for entry in allowed)


def includes_findings(table, includes):
    for file, headers in includes.items():
        folder = os.path.dirname(file)
        if folder not in table:
            yield f"{file}: its folder has no line in arrows.txt"
            continue
        allowed, forbidden = table[folder]
        for number, header in headers:
            ours = header in includes or header.endswith(".pb.h") or header.startswith("tests/")
            if ours and folder_of(header) != folder and not is_allowed(folder_of(header), allowed):
                yield f"{file}:{number}: {folder} must not include {header}"
        for path in reached(file, forbidden, includes):
            yield f"{file}: must not include {' -> '.join(path)}"


def reached(file, forbidden, includes):
    """The shortest chain of includes to each forbidden header."""
    chains, seen = [[header] for _, header in includes[file]], set()
    while forbidden and chains:
        chain = chains.pop(0)
        if chain[-1] in seen:
            continue
        seen.add(chain[-1])
        if chain[-1].startswith(tuple(forbidden)):
            yield chain
        else:
            chains += [chain + [header] for _, header in includes.get(chain[-1], [])]


def circle_findings(includes):
    """Folders that include each other, even if the table allows it."""
    edges = {}
    for file, headers in includes.items():
        folder = os.path.dirname(file)
        edges.setdefault(folder, set()).update(folder_of(h) for _, h in headers if h in includes)
    done = set()

    def visit(folder, path):
        if folder in path:
            yield "a circle of includes: " + " -> ".join(path[path.index(folder):] + [folder])
        elif folder not in done:
            for target in sorted(edges.get(folder, set()) - {folder}):
                yield from visit(target, path + [folder])
            done.add(folder)

    for folder in sorted(edges):
        yield from visit(folder, [])


def read_cmake(files):
    """The files that the CMakeLists.txt files name, and the folders that have one."""
    named, folders = set(), set()
    for file in files:
        if os.path.basename(file) != "CMakeLists.txt":
            continue
        folder = os.path.dirname(file)
        folders.add(folder)
        with open(file, encoding="utf-8") as text:
            text = re.sub(r"#.*", "", text.read())
        for token in re.findall(r'[^\s()";]+', text):
            token = re.sub(r"^\$\{\w+\}/", "", token)
            named.update((os.path.normpath(os.path.join(folder, token)), token))
        named.update(os.path.join(folder, target + ".cc") for target in re.findall(r"runnel_fuzz\((\w+)", text))
    return named, folders


def cmake_findings(files, sources):
    named, folders = read_cmake(files)
    for folder in sorted({os.path.dirname(source) for source in sources} - folders):
        yield f"{folder}: has C++ sources but no CMakeLists.txt"
    for file in files:
        if file.endswith((".cc", ".cpp")) and file not in named:
            yield f"{file}: no CMakeLists.txt names it"


def main():
    if len(sys.argv) > 1:
        print(__doc__.strip() if sys.argv[1] in ("-h", "--help") else f"arrows: unknown argument '{sys.argv[1]}'")
        sys.exit(sys.argv[1] not in ("-h", "--help"))
    os.chdir(ROOT)
    files = checkout_files()
    sources = [file for file in files if file.startswith(("services/", "bridges/")) and file.endswith((".cc", ".h"))
               and not file.startswith(OUTSIDE)]
    includes = {file: read_includes(file) for file in sources}
    table = read_table()
    findings = [*includes_findings(table, includes), *circle_findings(includes), *cmake_findings(files, sources)]
    findings += [f"arrows.txt: {folder} holds no C++ source" for folder in table
                 if not any(os.path.dirname(source) == folder for source in sources)]
    for finding in findings:
        print(finding)
    print(f"arrows: {len(sources)} files:", f"{len(findings)} findings" if findings else "no findings", flush=True)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
