#!/usr/bin/python3
"""Checks what no compiler looks at: check_tidiness.py [--fix] [ROOT]. --fix repairs trailing blanks and line ends.

- no file over 600 lines (protos: 1,000, since their comments are the manual), lock files, licences and dashboards apart
- a TODO says why it isn't done yet:  TODO(reason): what
- no test is skipped or switched off
- text files are UTF-8, end with one newline, have no trailing blanks and no carriage returns; no tabs in C++ and protos
- no path of one developer's machine (in examples the home directory is /home/ann)
- npm's lock files name no registry host (tools/buf/.npmrc keeps it out)
"""

import pathlib
import re
import sys

from project_files import project_files

LINES_MAX = 600
PROTO_LINES_MAX = 1000
UNLIMITED_NAMES = ("package-lock.json", "LICENSE")
# Made by tools/dashboards.py.
UNLIMITED_FOLDER = "helm/postkeeper/dashboards"

CODE_SUFFIXES = (".h", ".cc", ".py", ".sh", ".cmake", ".proto", ".js", ".go")
CODE_NAMES = ("dev", "run", "CMakeLists.txt", "Dockerfile")

# Written so that they don't find themselves.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
UNFINISHED_WITH_REASON = re.compile(r"\bTO" r"DO\([^)]*\w[^)]*\): \S")
SKIPPED_CPP = re.compile(r"\bGTEST_" r"SKIP|\bDIS" r"ABLED_")
SKIPPED_PYTHON = re.compile(r"\bskip" r"Test\b|\bunittest\.skip|\bSkip" r"Test\b|\bexpected" r"Failure\b")
MACHINE_PATH = re.compile(r"(?<![\w.*})-])/(home/(?!ann\b)\w|Users/\w|w[o]rk(space)?\b)")


def is_code(path):
    return path.suffix in CODE_SUFFIXES or path.name in CODE_NAMES


def lines_max(path):
    if path.name in UNLIMITED_NAMES or str(path.parent) == UNLIMITED_FOLDER:
        return None
    return PROTO_LINES_MAX if path.suffix == ".proto" else LINES_MAX


def check_line(path, line):
    """Yields what is wrong with one line (without its newline)."""
    if line != line.rstrip():
        yield "trailing blanks or carriage return (./dev fix removes them)"
    if path.suffix in (".h", ".cc", ".proto") and "\t" in line:
        yield "tab"
    if MACHINE_PATH.search(line):
        yield "path of one developer's machine"
    if is_code(path) and UNFINISHED.search(line) and not UNFINISHED_WITH_REASON.search(line):
        yield "say why it isn't done yet, TO" "DO(reason): what"
    if path.suffix in (".h", ".cc") and SKIPPED_CPP.search(line):
        yield "skipped test: repair it or remove it"
    if path.suffix == ".py" and SKIPPED_PYTHON.search(line):
        yield "skipped test: repair it or remove it"
    if path.name == "package-lock.json" and '"resolved"' in line:
        yield "names a registry host: delete the lock file and make it again, .npmrc beside it keeps the host out"


def check_text(path, text):
    if text and not text.endswith("\n"):
        yield 0, "no newline at the end (./dev fix adds it)"
    if text.endswith("\n\n"):
        yield 0, "empty lines at the end (./dev fix removes them)"
    lines = text.split("\n")[:-1]
    limit = lines_max(path)
    if limit is not None and len(lines) > limit:
        yield 0, f"{len(lines)} lines, {limit} are allowed: look for the second subject in it"
    for number, line in enumerate(lines, 1):
        for wrong in check_line(path, line):
            yield number, wrong


def fixed(text):
    body = "\n".join(line.rstrip() for line in text.split("\n")).rstrip("\n")
    return body + "\n" if body else ""


def main():
    arguments = sys.argv[1:]
    is_fixing = "--fix" in arguments
    roots = [argument for argument in arguments if argument != "--fix"]
    root = pathlib.Path(roots[0] if roots else ".").resolve()
    found = False
    for path in project_files(root):
        data = (root / path).read_bytes()
        if b"\0" in data:
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            print(f"{path}: not UTF-8: {error.reason} at byte {error.start}")
            found = True
            continue
        if is_fixing and fixed(text) != text:
            (root / path).write_bytes(fixed(text).encode("utf-8"))
            print(f"fixed {path}")
            text = fixed(text)
        for number, wrong in check_text(path, text):
            print(f"{path}:{number}: {wrong}" if number else f"{path}: {wrong}")
            found = True
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
