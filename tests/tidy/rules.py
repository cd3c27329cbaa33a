#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the rules of CONTRIBUTING.md that text alone can show. Each check yields one line for each finding."""

import os
import re
import sys

sys.dont_write_bytecode = True
import sources  # noqa: E402  (beside this file; no cache of it in the source tree)

# Each folder may include itself and those before it.
LAYERS = ["core", "net", "handlers", "tools"]
# These may include anything and are included by nobody but themselves.
OUTER = ["bench", "tests"]

MAX_LINES = 600
# Names that say nothing about what is in a file.
EMPTY_NAMES = {"util", "utils", "common", "manager", "helper", "helpers", "misc"}
MARKS = re.compile(r"\b(TODO|FIXME|XXX)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
TYPE = re.compile(r"(?:struct|class|union|enum class|enum)(?: \[\[nodiscard\]\])? (\w+)(?: final)?(?: :[^;]*)? *\{")
ROUTE = re.compile(r"^\s*X\((\w+), (\w+), (\w+)\)", re.MULTILINE)

# Tests that make the system calls of a container's program, as against those that look at filters only.
CALLING_TESTS = ("tests/parity/", "tests/kernel/", "tests/hostile/")


def upward_includes(files):
    """(path, text) pairs -> includes that run against the arrows core <- net <- handlers <- tools."""
    for path, text in files:
        top = path.split("/")[0]
        for target in INCLUDE.findall(text):
            target_top = target.split("/")[0]
            if top in LAYERS:
                allowed = LAYERS[:LAYERS.index(top) + 1]
            elif top in OUTER:
                allowed = LAYERS + (OUTER if top == "bench" else [top])  # benchmarks have the tests' containers
            else:
                allowed = []
            if "/" not in target and top == "tests" and "parity" in path:
                continue  # the parity guest is built without the project's include path
            if target_top not in allowed and target_top != "absl":
                yield f'{path}: includes "{target}": {top}/ may include {", ".join(allowed)}'


def empty_names(paths):
    for path in paths:
        words = re.split(r"[_.\-]", os.path.basename(path).lower())
        for word in EMPTY_NAMES.intersection(words):
            yield f'{path}: "{word}" does not say what is in the file'


def long_files(files):
    for path, text in files:
        lines = text.count("\n")
        if lines > MAX_LINES:
            yield f"{path}: {lines} lines; at most {MAX_LINES}: split it where it says two things"


def types_of_one_name(files):
    """Types outside of unnamed namespaces that two files of the program define: the linker takes what is made for one of them for
    both, and no compiler sees it. Tests and benchmarks are programs of their own."""
    known = {}
    for path, text in files:
        if path.startswith(("tests/", "bench/")):
            continue
        scope, unnamed = "", False
        for number, line in enumerate(text.split("\n"), 1):
            if line.startswith("namespace {"):
                unnamed = True
            elif line.startswith("namespace "):
                scope, unnamed = line, False
            elif line.startswith("}  // namespace"):
                unnamed = False
            found = None if unnamed else TYPE.match(line)
            if found and known.setdefault((scope, found.group(1)), path) != path:
                yield f"{path}:{number}: {found.group(1)} is a type of {known[scope, found.group(1)]} as well: give it another name"


def unlicensed(files):
    for path, text in files:
        if "SPDX-License-Identifier: Apache-2.0" not in "\n".join(text.split("\n", 3)[:3]):
            yield f"{path}: no SPDX line at its top"


def marks(files):
    for path, text in files:
        for number, line in enumerate(text.split("\n"), 1):
            found = MARKS.search(line)
            if found and path != "tests/tidy/rules.py" and path != "tests/tidy/rules_test.py":
                yield f"{path}:{number}: {found.group()}: finish it, or leave it out"


def routes(text):
    """[(system call, handler, condition)] of handlers/routes.h."""
    return ROUTE.findall(text)


def untested_routes(route_list, tests):
    """Routes whose system call no test makes. `tests` are (path, text) pairs."""
    for syscall, _, _ in route_list:
        call = re.compile(rf"\b{syscall}\s*\(|\bSYS_{syscall}\b|\b__NR_{syscall}\b")
        if not any(call.search(text) for path, text in tests if path.startswith(CALLING_TESTS)):
            yield f"handlers/routes.h: no test under {' '.join(CALLING_TESTS)} calls {syscall}"


def undocumented_routes(route_list, page):
    for syscall, _, _ in route_list:
        if f"| `{syscall}` |" not in page:
            yield f"docs/syscalls.md: no row for {syscall} (tests/tidy/syscalls_page.py --write)"


def main():
    paths = sources.project_files()
    # A fuzzer's inputs are bytes, not text.
    readable = [path for path in paths if not path.endswith((".svg", ".png")) and "/corpus/" not in path]
    text_of = {path: sources.read(path) for path in readable}
    cpp = [(path, text) for path, text in text_of.items() if sources.is_cpp(path)]
    code = cpp + [(path, text) for path, text in text_of.items()
                  if not sources.is_cpp(path) and (path.endswith(".py") or sources.is_script(path))]
    route_list = routes(text_of["handlers/routes.h"])
    if not route_list:
        sys.exit("handlers/routes.h: not one route was found in it")
    findings = [
        *upward_includes(cpp),
        *empty_names(paths),
        *long_files(code),
        *types_of_one_name(cpp),
        *unlicensed(code),
        *marks([(path, text) for path, text in text_of.items() if path != "LICENSE"]),
        *untested_routes(route_list, cpp),
        *undocumented_routes(route_list, text_of.get("docs/syscalls.md", "")),
    ]
    print(f"{len(paths)} files, {len(route_list)} routes")
    return sources.report(findings)


if __name__ == "__main__":
    sys.exit(main())
