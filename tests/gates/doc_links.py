#!/usr/bin/env python3
"""Checks that what the Markdown files name exists.

   tests/gates/doc_links.py

Links and their anchors; paths, flags, metrics and identifiers between backticks; paths in code blocks. A path may be
relative to the document, to the root or to any folder; an identifier must be a word of some file that is not a document.
README.md has at most 120 lines.
"""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
README_LINES = 120
TOP = ("proto/", "services/", "bridges/", "deploy/", "tests/", ".github/", ".ci/")
EXTENSIONS = r"(?:cc|cpp|h|js|mjs|ts|css|html|proto|py|go|sh|md|json|yaml|txt|cmake|flags|conf)"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`]+)`")
PATH = re.compile(rf"(?:\./)?(?:\.?[\w{{}},-]+/)+[\w.{{}},*-]*|[\w{{}},-]+\.(?:{EXTENSIONS}|\{{[a-z,]+\}})|CMakeLists\.txt")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9]+(?:[_-][a-z0-9]+)*)")
METRIC = re.compile(r"runnel_[a-z_]*[a-z]")
IDENTIFIER = re.compile(r"[A-Za-z]\w*(?:::\w+)*(?:\(\))?")


def git(*arguments):
    command = ["git", "-c", f"safe.directory={ROOT}", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as file:
        return file.read()


class Tree:
    def __init__(self):
        listed = git("ls-files", "--cached", "--others", "--exclude-standard")
        self.files = {file for file in listed if os.path.isfile(os.path.join(ROOT, file))}
        self.folders = {file[:at.start()] for file in self.files for at in re.finditer("/", file)}
        self.words = set()
        self.flags = set()
        self.metrics = set()  # and functions of CMake, which are named alike
        for file in self.files:
            if file.endswith((".md", ".png", "package-lock.json", ".sum")) or file.startswith("tests/fuzz/corpus/"):
                continue
            text = read(file)
            self.words.update(re.findall(r"\w+", text))
            self.flags.update(re.findall(r"ABSL_FLAG\(\s*[^;]*?,\s*(\w+),", text))
            if file.endswith((".sh", ".mjs", ".py")):
                self.flags.update(FLAG.findall(text))
            if file.endswith("CMakeLists.txt"):
                self.metrics.update(METRIC.findall(text))
            if file.startswith(("services/", "bridges/")):
                self.metrics.update(re.findall(r'"(runnel_\w+)"', text))

    def has(self, path, folder):
        """Whether `path`, which may have braces and stars, exists."""
        brace = re.search(r"\{([^{}]*)\}", path)
        if brace:
            each = (path[:brace.start()] + part + path[brace.end():] for part in brace.group(1).split(","))
            return all(self.has(part, folder) for part in each)
        path = path.removeprefix("./").rstrip("/")
        if "*" in path:
            pattern = re.compile("(.*/)?" + re.escape(path).replace(r"\*", "[^/]*"))
            return any(pattern.fullmatch(each) for each in self.files | self.folders)
        near = os.path.normpath(os.path.join(folder, path))
        return any(each in (path, near) or each.endswith("/" + path) for each in self.files | self.folders)


def anchors_of(text):
    """The anchors that GitHub gives to headings."""
    found, fenced = set(), False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and (heading := re.match(r"#+ (.*)", line)):
            title = re.sub(r"[^\w\- ]", "", heading.group(1).strip().lower().replace("`", ""))
            found.add(title.replace(" ", "-"))
    return found


def check_link(tree, document, target):
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = target.partition("#")
    path = os.path.normpath(os.path.join(os.path.dirname(document), path)) if path else document
    if path not in tree.files and path not in tree.folders:
        return f"link to {target}: no such file"
    if anchor and (path not in tree.files or anchor not in anchors_of(read(path))):
        return f"link to {target}: no such heading"
    return None


def script_of(tree, span):
    """The text of the script of the tree that the command `span` runs, or nothing, and the part that is for it."""
    words = span.split()
    for at, word in enumerate(words):
        word = word.removeprefix("./")
        if word in tree.files and not word.endswith(".md"):
            # run.sh of the benchmarks hands its arguments on.
            text = read(word) + (read("tests/bench/driver/bench.py") if word == "tests/bench/run.sh" else "")
            return text, " ".join(words[at:])
    return "", span


def check_flags(tree, span):
    script, span = script_of(tree, span)
    if not script and not span.startswith(("--", "runnel-")):
        return  # of another program
    for flag in FLAG.findall(span):
        if flag in tree.flags or flag in ("help", "flagfile"):
            continue
        if not re.search(rf"\b{flag}\b", script):
            yield f"no flag --{flag}"


def check_span(tree, document, span):
    folder = os.path.dirname(document)
    words = [word.strip("'\",;()") for word in span.split()]
    for word in words:
        word = re.sub(r"^\$PWD/(\.\./)*|^[A-Z_]+=\$PWD/", "", word)
        named = re.sub("README|HISTORY|CONTRIBUTING|SECURITY", "", word)
        skip = word.startswith(("build/", "/", "@", "http")) or re.search(r"[A-Z]{3,}|[<>=:#$]", named)
        known = word.removeprefix("./").startswith(TOP) or len(words) == 1
        if known and not skip and PATH.fullmatch(word) and not tree.has(word, folder):
            yield f"no path {word}"
    yield from check_flags(tree, span)
    for metric in METRIC.findall(span):
        if metric not in tree.metrics:
            yield f"no metric {metric}"
    # The history names what there was, and what other programs have.
    if len(words) == 1 and IDENTIFIER.fullmatch(span) and not document.endswith("HISTORY.md"):
        for part in span.removesuffix("()").split("::"):
            # Not a word of English, and not a name with a placeholder, such as http_STATUS.
            if re.search(r"[a-z]_[A-Z]{2}", part):
                continue
            if ("_" in part or re.search(r"[a-z][A-Z]", part) or "::" in span) and part not in tree.words:
                yield f"no identifier {span}"


def check_block_line(tree, line):
    for word in re.findall(r"(?<![\w./-])(?:\./)?[\w.{},-]+(?:/[\w.{},-]+)+", line):
        if word.removeprefix("./").startswith(TOP) and not tree.has(word, ""):
            yield f"no path {word}"


def check_document(tree, document):
    fenced = False
    for number, line in enumerate(read(document).splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
            continue
        found = list(check_block_line(tree, line)) if fenced else []
        if not fenced:
            found += filter(None, (check_link(tree, document, target) for target in LINK.findall(line)))
            found += (finding for span in SPAN.findall(line) for finding in check_span(tree, document, span))
        for finding in found:
            yield f"{document}:{number}: {finding}"


def main():
    if len(sys.argv) > 1:
        print(__doc__)
        return 0
    tree = Tree()
    documents = sorted(file for file in tree.files if file.endswith(".md"))
    findings = [finding for document in documents for finding in check_document(tree, document)]
    lines = len(read("README.md").splitlines())
    if lines > README_LINES:
        findings.append(f"README.md: {lines} lines, at most {README_LINES} are allowed")
    for finding in findings:
        print(finding, file=sys.stderr)
    print(f"doc_links: {len(documents)} documents, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
