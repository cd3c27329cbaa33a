# SPDX-License-Identifier: Apache-2.0
"""What the tidy tests share: the project's files, and how a finding is told."""

import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
SKIP = 77


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIP)


def project_files(root=ROOT):
    """Paths from the root of all files that belong to the project: what git knows, and what it would add."""
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={root}", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        skip(f"{root} is no clone, so nobody knows which files are the project's: {listing.stderr.strip()}")
    paths = sorted(set(filter(None, listing.stdout.split("\0"))))
    return [path for path in paths if os.path.isfile(os.path.join(root, path))]


def read(path, root=ROOT):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


def is_cpp(path):
    return path.endswith((".cc", ".h"))


def is_script(path, root=ROOT):
    with open(os.path.join(root, path), "rb") as file:
        return file.read(2) == b"#!"


def report(findings):
    """Prints the findings; the exit status."""
    for finding in findings:
        print(finding)
    print(f"{len(findings)} finding{'' if len(findings) == 1 else 's'}")
    return 1 if findings else 0
