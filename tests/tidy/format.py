#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""All C++ files are as clang-format 14 (Debian 12's) would write them.

Other versions lay out a few things differently, so with another one, or with none, this is skipped.
"""

import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
import sources  # noqa: E402  (beside this file; no cache of it in the source tree)

VERSION = 14


def formatter():
    for name in (f"clang-format-{VERSION}", "clang-format"):
        if shutil.which(name) is None:
            continue
        says = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
        found = re.search(r"version (\d+)\.", says)
        if found and int(found.group(1)) == VERSION:
            return name
    return None


def main():
    program = formatter()
    if program is None:
        sources.skip(f"clang-format {VERSION} is not installed: apt install clang-format-{VERSION}")
    paths = [path for path in sources.project_files() if sources.is_cpp(path)]
    run = subprocess.run([program, "--dry-run", *paths], cwd=sources.ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{program} failed:\n{run.stderr}")
    unformatted = sorted({line.split(":", 1)[0] for line in run.stderr.splitlines() if "-Wclang-format-violations" in line})
    print(f"{len(paths)} files")
    return sources.report([f"{path}: {program} -i {path}" for path in unformatted])


if __name__ == "__main__":
    sys.exit(main())
