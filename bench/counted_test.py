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
import unittest

BUILD, SHUNT = sys.argv.pop(1), sys.argv.pop(1)
CONNECTS = 1000

# Calls of the reactor for each connect of a blocking IPv4 socket.
OF_REACTOR = {
    "ioctl": (3, "RECV, ADDFD, SEND: the mechanism"),
    "io_uring_enter": (1, "the poll is armed again by the call that sleeps"),
    "process_vm_readv": (1, "the address"),
    "pread64": (1, "what the descriptor is: its fdinfo, in a file that stays open"),
    "pidfd_getfd": (1, "our duplicate of the socket"),
    "close": (2, "the duplicate, our copy of the twin"),
    "getsockname": (1, "is it bound?"),
    "getsockopt": (15, "network, TCP state, and 13 options that may have been set"),
    "setsockopt": (1, "SO_LINGER, which this client sets, on the twin"),
    "poll": (1, "is it shut down?"),
    "epoll_ctl": (1, "does somebody else hold it?"),
    "epoll_wait": (1, "the same"),
    "fcntl": (3, "two looks at flags, the twin's own"),
    "connect": (1, "the connection itself"),
}
# The engine's other threads make the sockets that are swapped in: socket, device or filter, SO_LOCK_FILTER.
OF_OTHERS = {"socket": (1, "the twin"), "setsockopt": (2, "its lock")}
# What no single connect causes: the store is filled up again, a turn of the ring more, an installation that was interrupted
# and begun again. A call that every connect makes is one whole more.
NOW_AND_THEN = 0.3


class Connect(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        host = os.environ["ARENA_HOST"]
        cls.server = subprocess.Popen([f"{BUILD}/echo_server", host, "0", "quiet"], stdout=subprocess.PIPE, text=True)
        port = cls.server.stdout.readline().split()[1]
        command = [f"{BUILD}/counted", "--address", host, "--port", port, "--connects", str(CONNECTS),
                   "--heap", f"{BUILD}/libheap_counts.so", "--", SHUNT, "run", "--net", "none"]
        counted = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
        if counted.returncode != 0:
            raise AssertionError(f"{command}: {counted.returncode} {counted.stderr}")
        print(counted.stdout)
        cls.counted = json.loads(counted.stdout)

    @classmethod
    def tearDownClass(cls):
        cls.server.kill()
        cls.server.wait()
        cls.server.stdout.close()

    def check_calls(self, kind, bounds):
        calls = self.counted["system_calls"]["by_name"][kind]
        for name, times in calls.items():
            bound, reason = bounds.get(name, (0, "nothing that every connect needs"))
            self.assertLessEqual(times, bound + NOW_AND_THEN, f"{name} of {kind}: {bound} for {reason}")
        return calls

    def test_takes_the_reactor_no_system_call_more_than_it_has_a_reason_for(self):
        if self.counted["system_calls"] is None:
            self.skipTest(self.counted["system_calls_why"])
        calls = self.check_calls("reactors", OF_REACTOR)
        # It is an accelerated connect that is counted.
        self.assertGreater(calls["connect"], 0.99)
        self.assertGreaterEqual(calls["ioctl"], 3)
        bound = sum(times for times, _ in OF_REACTOR.values())
        self.assertLessEqual(self.counted["system_calls"]["reactors"], bound + 1)

    def test_takes_the_other_threads_a_socket_in_advance(self):
        if self.counted["system_calls"] is None:
            self.skipTest(self.counted["system_calls_why"])
        self.check_calls("other_threads", OF_OTHERS)
        bound = sum(times for times, _ in OF_OTHERS.values())
        self.assertLessEqual(self.counted["system_calls"]["other_threads"], bound + 1)

    def test_touches_no_heap_on_the_reactor(self):
        self.assertIsNotNone(self.counted["heap_calls"], self.counted.get("heap_calls_why"))
        self.assertEqual(self.counted["heap_calls"]["reactors"], 0)

    def test_switches_as_often_as_the_mechanism_does(self):
        switches = self.counted["switches"]
        # The caller sleeps until it is to install the twin, and until it is answered.
        self.assertLessEqual(switches["client"]["voluntary"], 2 + NOW_AND_THEN)
        # The reactor sleeps until there is a notification, and until the twin is installed. Now and then it is woken and
        # finds that there is nothing to do yet: less than once for each connect.
        self.assertLess(switches["reactors"]["voluntary"], 3)
        self.assertLessEqual(switches["other_threads"]["voluntary"], 2 * NOW_AND_THEN)


if __name__ == "__main__":
    unittest.main()
