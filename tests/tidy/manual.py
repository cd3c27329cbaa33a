#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The manual pages and the program's --help name the same options.

    tests/tidy/manual.py SHUNT

Also: each subcommand has a page, the pages name no other, and groff (if it is installed) has nothing to complain about.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
import sources  # noqa: E402  (beside this file; no cache of it in the source tree)

PAGES = os.path.join(sources.ROOT, "docs", "man")
# An option in the left column of --help, with its short name or without.
IN_HELP = re.compile(r"^  ((?:-\w,)?--[\w-]+)", re.MULTILINE)
SUBCOMMAND = re.compile(r"^  ([a-z][\w-]*) ", re.MULTILINE)


def help_of(program, *subcommand):
    return subprocess.run([program, *subcommand, "--help"], capture_output=True, text=True, check=True, timeout=20).stdout


def options_in_help(text):
    return {option for group in IN_HELP.findall(text) for option in group.split(",")}


def options_in_page(text):
    """The options that the paragraphs of the section OPTIONS are tagged with."""
    section = re.search(r"^\.SH OPTIONS\n(.*?)(?=^\.SH )", text, re.DOTALL | re.MULTILINE)
    tags = re.findall(r"^\.TP\n(.*)", section.group(1) if section else "", re.MULTILINE)
    return {option for tag in tags for option in re.findall(r"(?<![\w-])--?[a-z][\w-]*", tag.replace("\\-", "-"))}


def main():
    program = sys.argv[1]
    listing = help_of(program)
    subcommands = SUBCOMMAND.findall(listing[listing.index("Subcommands:"):])
    findings = []
    expected = {"shunt.1": ()} | {f"shunt-{name}.1": (name,) for name in subcommands}
    for name in {os.path.basename(path) for path in glob.glob(os.path.join(PAGES, "*"))} - set(expected):
        findings.append(f"docs/man/{name}: shunt has no such subcommand")
    for name, subcommand in expected.items():
        path = os.path.join(PAGES, name)
        if not os.path.exists(path):
            findings.append(f"docs/man/{name}: there is no such page")
            continue
        with open(path, encoding="utf-8") as file:
            page = file.read()
        helped = options_in_help(help_of(program, *subcommand))
        if not helped:
            findings.append(f"shunt {' '.join(subcommand)} --help: not one option was found in it")
        for option in sorted(helped - options_in_page(page)):
            findings.append(f"docs/man/{name}: {option} is missing")
        for option in sorted(options_in_page(page) - helped):
            findings.append(f"docs/man/{name}: shunt {' '.join(subcommand)} has no option {option}")
        if shutil.which("groff"):
            lint = subprocess.run(["groff", "-man", "-ww", "-z", "-K", "utf8", path], capture_output=True, text=True, check=False)
            findings += [f"docs/man/{name}: {line}" for line in lint.stderr.splitlines()]
    print(f"{len(expected)} pages{'' if shutil.which('groff') else '; groff is not installed, so their form is not checked'}")
    return sources.report(findings)


if __name__ == "__main__":
    sys.exit(main())
