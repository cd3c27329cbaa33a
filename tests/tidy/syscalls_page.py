#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""docs/syscalls.md says what the sources say: it is made from them, and this test compares.

    tests/tidy/syscalls_page.py            exit status 1, and the difference, if the page is out of date
    tests/tidy/syscalls_page.py --write    writes it anew

Sources: handlers/routes.h (which calls, when), the first paragraph of each handler's file (what for), handlers/traps.cc
(what is refused), net/socket_options.h (what becomes of each socket option).
"""

import difflib
import os
import re
import sys
import textwrap

sys.dont_write_bytecode = True
import rules  # noqa: E402  (beside this file; no cache of it in the source tree)
import sources  # noqa: E402

PAGE = "docs/syscalls.md"

# What the names of RouteCondition mean to a reader. A new one must be given its words here.
CONDITIONS = {
    "kAlways": "every call",
    "kIfAsked": "only where the profile asks for it",
    "kIfRenumbered": "only in containers that publish a port under another number or on a host address",
    "kFastOpenInArg2": "only with `MSG_FASTOPEN` among its flags",
    "kFastOpenInArg3": "only with `MSG_FASTOPEN` among its flags",
    "kTrappedOption": "only for the options named below",
    "kIfAsked": "only in containers whose profile asks for it (`shunt profile --handler`)",
    "kSocketCall": "i386: only for the calls of this table that its first argument can name",
}

# What the names of OptionRule mean for an option whose setsockopt is trapped.
CARRIED = "kSame kNonzeroOnly kSkipValue kAtMost kHalfIfLocked".split()
KEPT_IF_SET = "kZeroOrOrdinaryPath"
KEPT = "kOrdinaryPath"

OPTION = re.compile(r"\{kLevel(?:Ip6|Ip|Socket|Tcp), \d+, \"(\w+)\", \w+, (\w+), (\w+)")

HEAD = """\
# System calls that shunt handles

<!-- Made from the sources by tests/tidy/syscalls_page.py --write; a test compares. Do not edit. -->

Everything that is not named here never reaches shunt: the filter lets it through without a notification, and calls whose
verdict depends on no argument (`read`, `write`, `close`, ...) cost what they cost without a filter. Filter, OCI profile,
dispatch table and this page come from one list, `handlers/routes.h`; `docs/architecture.md` shows a call's way.

| System call | Trapped | What for | Source |
|---|---|---|---|
"""


def paragraph(text):
    """The first paragraph of the comment at the top of a source file, below its SPDX line."""
    lines = []
    for line in text.split("\n")[1:]:
        if not line.startswith("//") or line.strip() == "//":
            break
        lines.append(line[2:].strip())
    return " ".join(lines)


def purpose(text):
    """That paragraph without the list of calls before its colon, as a sentence."""
    says = re.sub(r"^[\w(), ]*\(2\)[^:]{0,90}: ", "", paragraph(text))
    return says[0].upper() + says[1:]


def handler_file(handler, texts):
    definition = re.compile(rf"^Reply {handler}\(Call& call\) {{", re.MULTILINE)
    found = [path for path, text in texts.items() if definition.search(text)]
    if len(found) != 1:
        sys.exit(f"{handler} of handlers/routes.h is defined in {found or 'no file'}; it should be in one file of handlers/")
    return found[0]


def wrapped(labels):
    return textwrap.fill(", ".join(f"`{label}`" for label in labels) + ".", 118, break_long_words=False,
                         break_on_hyphens=False) + "\n"


def make_page():
    paths = [path for path in sources.project_files() if path.startswith("handlers/") and path.endswith(".cc")]
    texts = {path: sources.read(path) for path in paths}
    page = HEAD
    for syscall, handler, condition in rules.routes(sources.read("handlers/routes.h")):
        if condition not in CONDITIONS:
            sys.exit(f"{condition} of handlers/routes.h has no words in tests/tidy/syscalls_page.py")
        path = handler_file(handler, texts)
        page += f"| `{syscall}` | {CONDITIONS[condition]} | {purpose(texts[path])} | `{path}` |\n"

    denies = re.search(r"Denies\(const TrapNeeds& needs\) \{(.*?)^}", texts["handlers/traps.cc"], re.DOTALL | re.MULTILINE).group(1)
    page += "\n## Refused\n\n"
    for syscall, error in re.findall(r'\{"(\w+)", (\w+)\}', denies):
        page += f"- `{syscall}`: {error}, as on a kernel without it. An operation in a ring passes no filter.\n"
    newer = re.search(r"kNewerMountCalls\[\] = \{(.*?)\}", texts["handlers/traps.cc"], re.DOTALL).group(1)
    calls = ", ".join(f"`{call}`" for call in re.findall(r'"(\w+)"', newer))
    page += f"- {calls}: ENOSYS, in containers whose profile asks for mount. What they mount no filter can see.\n"

    options = OPTION.findall(sources.read("net/socket_options.h"))
    if len(options) < 50:
        sys.exit(f"only {len(options)} options were found in net/socket_options.h: its form has changed")
    groups = [
        ("\n## Socket options\n\nRead at every swap and carried over; their `setsockopt` is never trapped:\n\n",
         [label for label, _, use in options if use == "kHot"]),
        ("\nTheir `setsockopt` is trapped, which only notes that a swap of this socket has to read them all; carried over:\n\n",
         [label for label, rule, use in options if use == "kRare" and rule in CARRIED]),
        ("\nThe same, but a socket on which one of them is in force stays on the ordinary path:\n\n",
         [label for label, rule, use in options if use == "kRare" and rule == KEPT_IF_SET]),
        ("\nNobody can read them back, so a socket on which one was ever set stays on the ordinary path:\n\n",
         [label for label, rule, use in options if use == "kUnreadable" and rule == KEPT]),
    ]
    if sum(len(labels) for _, labels in groups) != len(options):
        sys.exit("net/socket_options.h has an option with a use or rule that this program does not know")
    for words, labels in groups:
        page += words + wrapped(labels)
    return page


def main():
    page = make_page()
    if sys.argv[1:] == ["--write"]:
        with open(os.path.join(sources.ROOT, PAGE), "w", encoding="utf-8") as file:
            file.write(page)
        return 0
    if sys.argv[1:]:
        sys.exit(f"usage: {sys.argv[0]} [--write]")
    stands = sources.read(PAGE) if os.path.exists(os.path.join(sources.ROOT, PAGE)) else ""
    difference = list(difflib.unified_diff(stands.splitlines(), page.splitlines(), PAGE, "the sources", lineterm=""))
    print("\n".join(difference))
    if difference:
        print(f"{PAGE} is out of date: tests/tidy/syscalls_page.py --write")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main())
