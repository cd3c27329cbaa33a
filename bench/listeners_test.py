#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Containers that call under an agent with many listeners: all their calls are measured, and nobody else's.

    tests/support/arena [--user] -- bench/listeners_test.py BENCH_BUILD SHUNT
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

BUILD, SHUNT = sys.argv.pop(1), sys.argv.pop(1)


class Listeners(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.socket = os.path.join(directory.name, "agent.sock")
        ready, ours = os.pipe()
        self.agent = subprocess.Popen([SHUNT, "agent", "--socket", self.socket, "--ready-fd", str(ours)], pass_fds=[ours],
                                      stderr=subprocess.DEVNULL)
        self.addCleanup(self.agent.wait)
        self.addCleanup(self.agent.terminate)
        os.close(ours)
        self.addCleanup(os.close, ready)
        self.assertTrue(os.read(ready, 1), "the agent did not start")

    def listeners(self, *options):
        return subprocess.run([f"{BUILD}/listeners", self.socket, *map(str, options)], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, check=False, timeout=100)

    def test_all_calls_of_the_callers_are_measured_beside_listeners_that_are_idle(self):
        result = self.listeners(20, "--callers", 3, "--count", 200, "--warmup", 10)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        ready, measured = result.stdout.splitlines()
        self.assertEqual(ready, "ready")
        measured = json.loads(measured)
        self.assertEqual((measured["listeners"], measured["callers"], measured["samples"]), (20, 3, 600))
        # A trapped call sleeps and is woken, twice: what takes less was not trapped.
        native = json.loads(subprocess.run([f"{BUILD}/floor", "--target-only", "--call", "connect", "--count", "1000"],
                                           capture_output=True, text=True, check=True, timeout=60).stdout)
        self.assertGreater(measured["p50_ns"], 3 * native["p50_ns"])

    def test_without_callers_it_only_holds_them(self):
        result = self.listeners(2)
        self.assertEqual((result.returncode, result.stdout), (0, "ready\n"))

    def test_more_callers_than_containers_are_refused(self):
        result = self.listeners(2, "--callers", 3)
        self.assertEqual(result.returncode, 2)
        self.assertIn("--callers", result.stderr)


if __name__ == "__main__":
    unittest.main()
