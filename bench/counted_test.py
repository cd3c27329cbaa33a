#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An accelerated connect takes no more system calls, switches and allocations than each is known to be for.

    tests/support/arena [--user] -- bench/counted_test.py BENCH_BUILD SHUNT

No time is looked at. Each bound stands beside its reason; docs/performance.md, "Where the time of an accelerated connect
goes", says what each call buys. Whoever raises a bound has made every connect of everybody dearer, and says so there.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

BUILD, SHUNT = sys.argv.pop(1), sys.argv.pop(1)

# Calls of the reactor for each connect of a blocking IPv4 socket; and what is another number for others.
OF_REACTOR = {
    "ioctl": (3, "RECV, ADDFD, SEND: the mechanism"),
    "io_uring_enter": (1, "the poll is armed again by the call that sleeps"),
    "process_vm_readv": (1, "the address"),
    "pread64": (1, "what the descriptor is: its fdinfo, in a file that stays open"),
    "pidfd_getfd": (1, "our duplicate of the socket"),
    "close": (2, "the duplicate, our copy of the twin"),
    "getsockname": (1, "is it bound?"),
    "getsockopt": (15, "network, TCP state, and 13 options that may have been set"),
    "poll": (1, "is it shut down?"),
    "epoll_ctl": (1, "does somebody else hold it?"),
    "epoll_wait": (1, "the same"),
    "fcntl": (3, "two of the options: F_GETOWN_EX, F_GETSIG; F_SETFL: the twin blocks again"),
    "connect": (1, "the connection itself"),
}
OF_NONBLOCKING = {**OF_REACTOR, "fcntl": (2, "two of the options: the twin is nonblocking as it is")}
OF_IPV6 = {**OF_REACTOR, "getsockopt": (16, "one option more than IPv4: IPV6_V6ONLY")}
OF_SERVICE = {**OF_REACTOR, "connect": (2, "the attempt, and how it went: the next backend is tried if it failed")}
# Of all threads together: the engine's others make the sockets that are swapped in, in advance, and the reactor does so where
# the store is empty.
OF_TWIN = {
    "socket": (1, "the twin"),
    "setsockopt": (3, "its lock: a device, or a filter and SO_LOCK_FILTER; and SO_LINGER, which this client sets"),
}
# What no single connect causes: the store is filled up again, a turn of the ring more, an installation that was interrupted
# and begun again. A call that every connect makes is one whole more.
NOW_AND_THEN = 0.3


class Connect(unittest.TestCase):
    connects = 1000
    host = "ARENA_HOST"
    client_options = []
    of_reactor = OF_REACTOR

    def run_options(self, _backend):
        return []

    def target(self, host, port):
        return host, port

    def setUp(self):
        host = os.environ[self.host]
        server = subprocess.Popen([f"{BUILD}/echo_server", host, "0", "quiet"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        port = server.stdout.readline().split()[1]
        address, target_port = self.target(host, port)
        self.command = [f"{BUILD}/counted", "--address", address, "--port", target_port, "--connects", str(self.connects),
                        *self.client_options, "--heap", f"{BUILD}/libheap_counts.so", "--", SHUNT, "run", "--net", "none",
                        *self.run_options(f"{host}:{port}")]

    def count(self):
        counted = subprocess.run(self.command, capture_output=True, text=True, check=False, timeout=50)
        self.assertEqual(counted.returncode, 0, f"{self.command}: {counted.stderr}")
        print(counted.stdout)
        self.counted = json.loads(counted.stdout)

    def test_takes_no_more_than_it_has_a_reason_for(self):
        # Whoever else takes the CPUs can only add to it, and seldom twice.
        for last in (False, False, True):
            self.count()
            self.check_heap()
            try:
                self.check_switches()
                if self.counted["system_calls"] is None:
                    self.skipTest(self.counted["system_calls_why"])
                self.check_reactors()
                self.check_other_threads()
                return
            except AssertionError:
                if last:
                    raise

    def check_calls(self, kind, bounds):
        calls = self.counted["system_calls"]["by_name"][kind]
        for name, times in calls.items():
            if name not in OF_TWIN:
                bound, reason = bounds.get(name, (0, "nothing that every connect needs"))
                self.assertLessEqual(times, bound + NOW_AND_THEN, f"{name} of {kind}: {bound} for {reason}")
        rest = sum(times for name, times in calls.items() if name not in OF_TWIN)
        self.assertLessEqual(rest, sum(times for times, _ in bounds.values()) + 1)
        return calls

    def check_reactors(self):
        calls = self.check_calls("reactors", self.of_reactor)
        # It is an accelerated connect that is counted.
        self.assertGreater(calls["connect"], 0.99)
        self.assertGreaterEqual(calls["ioctl"], 3)

    def check_other_threads(self):
        others = self.check_calls("other_threads", {})
        for name, (bound, reason) in OF_TWIN.items():
            times = others.get(name, 0) + self.counted["system_calls"]["by_name"]["reactors"].get(name, 0)
            self.assertLessEqual(times, bound + NOW_AND_THEN, f"{name} of all threads: {bound} for {reason}")

    def check_heap(self):
        self.assertIsNotNone(self.counted["heap_calls"], self.counted.get("heap_calls_why"))
        self.assertEqual(self.counted["heap_calls"]["reactors"], 0)
        # As they began they did, and it was counted.
        self.assertGreater(self.counted["heap_calls_before"]["reactors"], 0)
        self.assertGreater(self.counted["heap_calls_before"]["other_threads"], 0)

    def check_switches(self):
        switches = self.counted["switches"]
        # The caller sleeps until it is to install the twin, and until it is answered.
        self.assertLessEqual(switches["client"]["voluntary"], 2 + NOW_AND_THEN)
        # The reactor sleeps until there is a notification, and until the twin is installed. Now and then it is woken and
        # finds that there is nothing to do yet: less than once for each connect.
        self.assertLess(switches["reactors"]["voluntary"], 3)
        self.assertLessEqual(switches["other_threads"]["voluntary"], 2 * NOW_AND_THEN)


class NonblockingConnect(Connect):
    connects = 300
    client_options = ["--nonblocking"]
    of_reactor = OF_NONBLOCKING


class Ipv6Connect(Connect):
    connects = 300
    host = "ARENA_HOST6"
    of_reactor = OF_IPV6


class ServiceConnect(Connect):
    """To an address that nobody has: a service's, with one backend."""

    connects = 300
    of_reactor = OF_SERVICE

    def target(self, _host, _port):
        return "10.96.0.10", "80"

    def run_options(self, backend):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "services.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"services: [{{name: counted, address: '10.96.0.10:80', backends: ['{backend}']}}]\n")
        return ["--services", path]


if __name__ == "__main__":
    unittest.main()
