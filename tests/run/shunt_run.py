# SPDX-License-Identifier: Apache-2.0
"""What the tests of `shunt run` share: to run it, and to look at processes."""

import os
import subprocess
import sys
import time
import unittest

SHUNT = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else sys.exit("usage: ..._test.py SHUNT [CLASS[.TEST]...]")
PYTHON = "/usr/bin/python3"
DEADLINE = 30  # seconds; nothing here takes more than a few
IS_ROOT = os.geteuid() == 0


# With the engine in place the command must be none the wiser. (Without a network there is little for it to do.)
ACCELERATED = os.environ.get("SHUNT_TEST_ACCELERATED") == "1"


def command_line(net, arguments):
    """Of `shunt run` with the network `net`, or with none of these options of ours if that is None."""
    ordinary = [] if ACCELERATED else ["--no-accelerate"]
    return [SHUNT, "run", *(["--net", net, *ordinary] if net else []), *arguments]


def run(*arguments, net="none", **kwargs):
    """Runs `shunt run` to its end."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(command_line(net, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=DEADLINE, **kwargs)


def start(*arguments, net="none", **kwargs):
    """Starts `shunt run` in a session without a terminal."""
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("start_new_session", True)
    return subprocess.Popen(command_line(net, arguments), stdout=subprocess.PIPE, text=True, **kwargs)


def until(condition, what):
    """Waits for what another process does."""
    end = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("did not happen: " + what)
        time.sleep(0.01)


def processes():
    """{pid: (parent, state, name)} of everything that we see."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                text = file.read()
        except OSError:
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        state, parent = text[text.rindex(")") + 2 :].split()[:2]
        found[int(entry)] = (int(parent), state, name)
    return found


def descendants(ancestor):
    everybody = processes()
    family = {ancestor}
    while True:
        more = {pid for pid, (parent, _, _) in everybody.items() if parent in family} - family
        if not more:
            return family
        family |= more


def alive(pids):
    return {pid for pid, (_, state, _) in processes().items() if pid in pids and state not in "ZX"}


def main():
    """Runs what the command line names of the calling script's tests."""
    module = sys.modules["__main__"]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(sys.argv[2:], module) if sys.argv[2:] else loader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if result.wasSuccessful() and result.testsRun == len(result.skipped):
        sys.exit(77)
    sys.exit(not result.wasSuccessful())
