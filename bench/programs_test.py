#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The measuring programs against what is known beforehand: a supervisor that takes d, a stall at every Nth, a server that stalls.

    programs_test.py BENCH_BUILD

Where a time is asserted it is one that was made, compared with a row without it from the same run. The machine may be busy:
what others do to a median of short operations is small, and margins are wide in the direction of "longer".
"""

import json
import socket
import subprocess
import sys
import unittest

BUILD = sys.argv.pop(1)
US, MS = 1000, 1_000_000  # in nanoseconds
BUCKET = 1.0 / 128  # the width of a bucket, relative to what lies in it


def run(program, *options):
    command = [f"{BUILD}/{program}", *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    if result.returncode == 77:
        raise unittest.SkipTest(result.stderr.strip())
    if result.returncode != 0:
        raise AssertionError(f"{command}: {result.returncode} {result.stderr}")
    return json.loads(result.stdout)


def lowest_of(index):
    """The smallest value of a bucket, as bench/histogram.h numbers them."""
    octave = index // 128
    return index if octave == 0 else (index % 128 + 128) << (octave - 1)


def at_least(measured, nanoseconds):
    """How many samples lie in buckets that begin there or above."""
    return sum(count for index, count in measured["histogram"]["counts"] if lowest_of(index) >= nanoseconds)


class Floor(unittest.TestCase):
    def floor(self, *options):
        # On one CPU nothing depends on where the scheduler puts whom.
        return run("floor", "--affinity", "same", *options)

    def test_a_supervisor_that_takes_d_measures_d(self):
        for delay_us in (100, 300):
            errors = []
            while len(errors) < 5 and (not errors or abs(errors[-1]) > delay_us * US * 0.05):
                nothing = self.floor("--count", 1000)
                measured = self.floor("--count", 1000, "--delay-us", delay_us)
                self.assertGreaterEqual(measured["min_ns"], delay_us * US * (1 - BUCKET))
                errors.append(measured["p50_ns"] - nothing["p50_ns"] - delay_us * US)
            self.assertLessEqual(abs(errors[-1]), delay_us * US * 0.05, f"{delay_us} us: {errors}")

    def test_a_stall_appears_at_its_percentile_and_as_often_as_it_was(self):
        measured = self.floor("--count", 2000, "--warmup", 0, "--stall-every", 50, "--stall-ms", 20)
        self.assertEqual(measured["samples"], 2000)
        stalls = at_least(measured, 20 * MS * (1 - BUCKET))
        self.assertGreaterEqual(stalls, 40)
        self.assertLess(stalls, 50)  # others may have taken the CPU for as long
        self.assertLess(measured["p90_ns"], 10 * MS)  # 2% of the calls stall
        self.assertGreater(measured["p99_ns"], 20 * MS * (1 - BUCKET))
        self.assertLess(measured["p99_ns"], 30 * MS)
        self.assertGreaterEqual(measured["max_ns"], 20 * MS)

    def test_every_caller_is_measured_and_only_those(self):
        measured = self.floor("--listeners", 30, "--callers", 3, "--count", 200)
        self.assertEqual(measured["samples"], 600)
        self.assertEqual((measured["listeners"], measured["callers"]), (30, 3))

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


class Loops(unittest.TestCase):
    STALL = 200 * MS

    def test_an_open_loop_shows_what_a_closed_one_hides(self):
        with Server("--stall-every", 500, "--stall-ms", self.STALL // MS) as server:
            closed = server.connect("echo", "--count", 2000, "--warmup", 0)
            open_ = server.connect("echo", "--rate", 1000, "--threads", 4, "--count", 500, "--warmup", 0)
        for measured in (closed, open_):
            self.assertEqual(measured["errors"], {})
            self.assertEqual(measured["samples"], 2000)
            self.assertGreaterEqual(measured["max_ns"], self.STALL * (1 - BUCKET))
        self.assertEqual((closed["loop"], open_["loop"]), ("closed", "open"))
        # Four stalls in 2,000 connections: the closed loop counts four that were slow, the open one also those that
        # were due meanwhile: 200 for each stall, of which a half has to wait for longer than a half of it.
        self.assertLess(at_least(closed, self.STALL / 2), 12)
        self.assertLess(closed["p99_ns"], self.STALL / 2)
        self.assertGreater(at_least(open_, self.STALL / 2), 4 * 75)
        self.assertGreater(open_["p99_ns"], self.STALL / 2)
        # All but those four that each thread had under way were begun late, by up to the whole stall.
        self.assertGreater(open_["late_starts"], 4 * 150)
        self.assertGreater(open_["late_max_ns"], self.STALL / 2)
        self.assertNotIn("late_starts", closed)

    def test_an_open_loop_keeps_its_rate_and_says_when_it_cannot(self):
        with Server() as server:
            slow = server.connect("connect-close", "--rate", 200, "--threads", 2, "--count", 50)
            hasty = server.connect("connect-close", "--rate", 1_000_000, "--seconds", 0.2)
        self.assertEqual(slow["samples"], 100)
        self.assertGreaterEqual(slow["seconds"], 0.49)  # the last of 100 at 200 in a second is due after 0.495 s
        self.assertEqual(slow["not_started"], 0)
        self.assertLess(hasty["seconds"], 10)
        self.assertGreater(hasty["late_starts"], 0)
        due = hasty["samples"] + hasty["not_started"]
        self.assertAlmostEqual(due, 200_000, delta=2)

    def test_connections_take_turns_among_several_ports(self):
        with Server() as server, socket.socket() as silent:
            silent.bind((server.address, 0))  # and does not listen
            server.port += f",{silent.getsockname()[1]}"
            both = server.connect("connect-close", "--threads", 2, "--count", 50)
        self.assertEqual((both["samples"], both["errors"]), (50, {"ECONNREFUSED": 50}))

    def test_nobody_is_late_for_the_first_connection_of_an_open_loop(self):
        with Server() as server:
            lone = [server.connect("connect-close", "--rate", 100, "--count", 1) for _ in range(10)]
        # A machine that is busy may wake one late, not each.
        self.assertEqual(min(each["late_starts"] for each in lone), 0)

    def test_both_families_and_both_ways_of_waiting_are_measured(self):
        for address, family in (("127.0.0.1", "ipv4"), ("::1", "ipv6")):
            with Server(address=address) as server:
                for options in ([], ["--nonblocking"]):
                    for rate in ([], ["--rate", 2000]):
                        measured = server.connect("echo", "--count", 50, *options, *rate)
                        self.assertEqual((measured["samples"], measured["errors"]), (50, {}))
                        self.assertEqual((measured["family"], measured["nonblocking"]), (family, bool(options)))


class Swap(unittest.TestCase):
    """A command in a network of its own, which has nothing but a loopback that is down."""

    PARTS = ["continue", "twin", "address", "socket", "options", "holders"]

    def inside(self, server, part):
        command = [f"{BUILD}/swap", "--parts", part, "--twins", "5", "--", "unshare", "--user", "--map-root-user", "--net",
                   f"{BUILD}/connect_client", "--mode", "echo", "--address", server.address, "--port", server.port,
                   "--count", "20", "--warmup", "0"]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        if result.returncode == 77 or "unshare" in result.stderr:
            self.skipTest(result.stderr.strip())
        return result

    def test_every_part_but_the_first_connects_by_a_socket_of_the_host(self):
        with Server() as server:
            for part in self.PARTS:
                with self.subTest(part):
                    result = self.inside(server, part)
                    measured = json.loads(result.stdout)
                    if part == "continue":
                        self.assertEqual((measured["samples"], measured["errors"]), (0, {"ENETUNREACH": 20}))
                        self.assertEqual(result.returncode, 1)
                    else:
                        self.assertEqual((measured["samples"], measured["errors"]), (20, {}), result.stderr)
                        self.assertEqual(result.returncode, 0)

    def test_unknown_parts_are_a_wrong_use(self):
        result = subprocess.run([f"{BUILD}/swap", "--parts", "all", "--", "true"], capture_output=True, text=True, check=False,
                                timeout=100)
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        self.assertIn("--parts continue|twin", result.stderr)


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
