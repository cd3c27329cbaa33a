#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING.md says how a handler is added. This does it, to a copy of handlers/, with the file and the line that stand
there, compiles what those two change, and asks the result.

    tests/tidy/adding_a_handler.py build/dev/compile_commands.json
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import sources  # noqa: E402  (beside this file; no cache of it in the source tree)

# What a build would do with the new route: the table that dispatches, the traps of filter and profile.
PROBE = """
#include <cstdio>
#include <cstring>

#include "handlers/handlers.h"
#include "handlers/traps.h"

int main() {
  using namespace shunt;
  bool routed = false, trapped = false, unasked = false;
  for (const Route& route : kRoutes) {
    routed |= strcmp(route.syscall, "SYSCALL") == 0 && route.handler == FUNCTION;
  }
  for (const Trap& trap : Traps({.handlers = {"NAME"}})) trapped |= trap.syscall == "SYSCALL";
  for (const Trap& trap : Traps({})) unasked |= trap.syscall == "SYSCALL";
  bool askable = false;
  for (const std::string& name : AskableHandlers()) askable |= name == "NAME";
  printf("%d%d%d%d\\n", routed, trapped, askable, unasked);
}
"""


def example(page):
    """The file and the route of CONTRIBUTING.md, as (text, line)."""
    blocks = re.findall(r"^ *```cpp\n(.*?)^ *```$", page, re.DOTALL | re.MULTILINE)
    blocks = [re.sub(r"^ {3}", "", block, flags=re.MULTILINE) for block in blocks]
    if len(blocks) < 2:
        sys.exit("CONTRIBUTING.md: the handler's file and its line in routes.h should stand there as ```cpp blocks")
    return blocks[0], blocks[1]


def main():
    commands = json.load(open(sys.argv[1], encoding="utf-8"))
    words = next(words for words in (shlex.split(one["command"]) for one in commands)
                 if any("/shunt_handlers.dir/" in word for word in words))
    compiler = [word for word in words[:words.index("-c")] if not word.endswith(".o") and word not in ("-o", "-MD", "-MT", "-MF")
                and not word.endswith(".o.d")]
    compiler = [word for word in compiler if os.path.basename(word) != "ccache" and word not in ("-O2", "-O3", "-g")]

    text, line = example(sources.read("CONTRIBUTING.md"))
    route = re.match(r"\s*X\((\w+), (\w+), (\w+)\)\s*\\$", line.rstrip("\n"))
    if not route:
        sys.exit(f"CONTRIBUTING.md: this is no line of routes.h: {line}")
    syscall, function, _ = route.groups()
    with tempfile.TemporaryDirectory() as copy:
        handlers = os.path.join(copy, "handlers")
        shutil.copytree(os.path.join(sources.ROOT, "handlers"), handlers)
        with open(os.path.join(handlers, "routes.h"), encoding="utf-8") as file:
            routes = file.read()
        head, tail = routes.split("#define SHUNT_ROUTES(X)", 1)
        first_line, tail = tail.split("\n", 1)
        with open(os.path.join(handlers, "routes.h"), "w", encoding="utf-8") as file:
            file.write(f"{head}#define SHUNT_ROUTES(X){first_line}\n{line}{tail}")
        with open(os.path.join(handlers, f"{syscall}.cc"), "w", encoding="utf-8") as file:
            file.write(text)
        with open(os.path.join(copy, "probe.cc"), "w", encoding="utf-8") as file:
            file.write(PROBE.replace("SYSCALL", syscall).replace("FUNCTION", function).replace("NAME", function.lower()))
        # The other handlers are not linked: nobody calls them, but the table names them.
        with open(os.path.join(copy, "stubs.cc"), "w", encoding="utf-8") as file:
            others = {name for name in re.findall(r"^\s*X\(\w+, (\w+), \w+\)", routes, re.MULTILINE)}
            file.write('#include "handlers/handlers.h"\nnamespace shunt {\n')
            file.writelines(f"Reply {name}(Call& /*call*/) {{ return Reply::Continue(); }}\n" for name in sorted(others))
            file.write("}\n")
        build = os.path.dirname(os.path.abspath(sys.argv[1]))
        program = os.path.join(copy, "probe")
        subprocess.run([compiler[0], f"-I{copy}", *compiler[1:], "-O0", os.path.join(copy, "probe.cc"), os.path.join(copy, "stubs.cc"),
                        os.path.join(handlers, f"{syscall}.cc"), os.path.join(handlers, "traps.cc"),
                        os.path.join(build, "core/libshunt_core.a"), "-o", program, *libraries()],
                       check=True, cwd=build, timeout=110)
        says = subprocess.run([program], check=True, capture_output=True, text=True).stdout.strip()
    if says != "1110":
        sys.exit(f"the handler of CONTRIBUTING.md: routed, trapped where asked for, known to --handler, trapped unasked: {says}, "
                 "should be 1110")
    print(f"{syscall}: one file and one line, and it is routed, trapped and known to `shunt profile --handler`")
    return 0


def libraries():
    found = subprocess.run(["pkg-config", "--libs", "libseccomp", "liburing", "libacl", "absl_statusor", "absl_strings",
                            "absl_str_format"], check=True, capture_output=True, text=True)
    return shlex.split(found.stdout)


if __name__ == "__main__":
    sys.exit(main())
