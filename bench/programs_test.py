#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the measuring programs print.

    programs_test.py BENCH_BUILD
"""

import json
import subprocess
import sys
import unittest

BUILD = sys.argv.pop(1)
US = 1000  # in nanoseconds


def run(program, *options):
    command = [f"{BUILD}/{program}", *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    if result.returncode == 77:
        raise unittest.SkipTest(result.stderr.strip())
    if result.returncode != 0:
        raise AssertionError(f"{command}: {result.returncode} {result.stderr}")
    return json.loads(result.stdout)


class Floor(unittest.TestCase):
    def test_a_percentile_is_given_from_as_many_samples_as_carry_it(self):
        for count, carried in [(99, [False, False, False, False]), (100, [True, False, False, False]),
                               (999, [True, False, False, False]), (1000, [True, True, False, False]),
                               (99_999, [True, True, False, False]), (100_000, [True, True, True, False]),
                               (1_000_000, [True, True, True, True])]:
            measured = run("floor", "--target-only", "--warmup", 0, "--count", count)
            self.assertEqual(measured["samples"], count)
            names = ("p90_ns", "p99_ns", "p99_9_ns", "p99_99_ns")
            self.assertEqual([measured[name] is not None for name in names], carried, f"{count} samples")
            ordered = [measured["min_ns"], measured["p50_ns"]]
            ordered += [measured[name] for name in names if measured[name] is not None] + [measured["max_ns"]]
            self.assertEqual(ordered, sorted(ordered))


class Server:
    """An echo server on the loopback, with options."""

    def __init__(self, *options, address="127.0.0.1"):
        self.address = address
        self.command = [f"{BUILD}/echo_server", address, "0", *map(str, options)]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        words = self.process.stdout.readline().split()
        if words[:1] != ["ready"]:
            raise AssertionError(f"{self.command}: {words}")
        self.port = words[1]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def connect(self, mode, *options):
        return run("connect_client", "--mode", mode, "--address", self.address, "--port", self.port, *options)


class Overhead(unittest.TestCase):
    def test_each_program_says_what_it_costs_itself(self):
        with Server() as server:
            measured = [server.connect("connect", "--count", 10)]
        measured.append(run("floor", "--target-only", "--count", 10))
        measured.append(run("untrapped", "--batches", 20))
        for one in measured:
            self.assertGreater(one["overhead_ns"], 0)
            self.assertLess(one["overhead_ns"], 10 * US)  # a clock that takes as long is no clock
        # A loop without a call is quicker than one with the cheapest call that there is.
        self.assertLess(measured[2]["overhead_ns"], measured[2]["getpid"]["p50_ns"])


if __name__ == "__main__":
    unittest.main()
