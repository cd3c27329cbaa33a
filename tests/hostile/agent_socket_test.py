#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Strangers and liars at the socket of a real `shunt agent` of root.

    agent_socket_test.py PROGRAM

Whoever connects here is a process of another user (really: it has changed its user id), and sends what a
runtime would send: a container process state and a true seccomp listener. The agent's log says what became of
it, and must be fit to be read on a terminal whatever the state holds.
"""

import array
import errno
import json
import os
import queue
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from seccomp_listener import make_listener  # noqa: E402  (found by the line above)

ARENA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "arena")
PATIENCE = 30  # seconds; nothing here takes one
STRANGER = 7331
SKIP = 77
CROWD = 10_000
MOST_CONNECTIONS = 256 + 64  # core/limits.h: kRuntimeConnections, kConnectionsUnderWay
PROGRAM = None

HOSTILE_IDS = (
    "\033[2J\033]0;title\007",                          # clears the screen, names the window
    "one\r\n2026-01-01T00:00:00.000+00:00 info: two",   # a line of its own
    "\u202egnp.exe \u2028 \u00e4 \x9b31m",              # directions, separators, control codes of 8 bits
    "nul\0behind",
    "\\x1b[2J",                                         # what an escape looks like
    "x" * 100_000,
    "../../../etc/passwd",
    "%s%n{}{0:>999999999}",
)


def act_as_runtime(path, container_id):
    """In a process of its own: hands one container over and waits until the agent closes."""
    listener = make_listener()
    if listener < 0:
        return SKIP
    state = {"ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": os.getpid(),
             "state": {"ociVersion": "1.0.2", "id": container_id, "status": "creating", "pid": os.getpid(),
                       "bundle": "/" + container_id}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.connect(path)
        try:
            agent.sendmsg([json.dumps(state).encode()],
                          [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
            os.close(listener)
            agent.shutdown(socket.SHUT_WR)
            agent.recv(1)
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed before or after it was read
    return 0


class Agent:
    def __init__(self, folder, *options):
        self.socket = os.path.join(folder, "agent.sock")
        ready, ready_write = os.pipe()
        self.process = subprocess.Popen(
            [PROGRAM, "agent", "--socket", self.socket, "--ready-fd", str(ready_write), *options],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[ready_write])
        os.close(ready_write)
        self.lines = queue.Queue()
        self.seen = []
        self.collector = threading.Thread(target=self._collect, daemon=True)
        self.collector.start()
        with open(ready, "rb") as pipe:
            self.ready = pipe.read()

    def _collect(self):
        for line in self.process.stderr:
            self.seen.append(line)
            self.lines.put(line)

    def wait_for(self, pattern):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line matches {pattern!r}: {self.seen}") from None
            if re.search(pattern, line):
                return line

    def stop(self):
        self.process.terminate()
        status = self.process.wait(timeout=PATIENCE)
        self.collector.join(PATIENCE)
        self.process.stderr.close()
        return status


class AgentSocketTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        os.chmod(self.folder.name, 0o755)

    def start(self, *options):
        agent = Agent(self.folder.name, *options)
        self.addCleanup(agent.stop)
        self.assertEqual(agent.ready, b"\x01", agent.seen)
        return agent

    def hand_over(self, agent, container_id="container", user=STRANGER):
        """Returns the pid that the runtime had."""
        with subprocess.Popen([sys.executable, os.path.abspath(__file__), "--runtime", agent.socket],
                              stdin=subprocess.PIPE, user=user, group=user, extra_groups=[]) as runtime:
            runtime.stdin.write(container_id.encode())
            runtime.stdin.close()
            status = runtime.wait(timeout=PATIENCE)
        if status == SKIP:
            self.skipTest("the kernel gives no listener here")
        self.assertEqual(status, 0)
        return runtime.pid

    def test_turns_another_user_away_and_says_who_it_was_and_what_to_do(self):
        agent = self.start("--allow-uid", str(STRANGER + 1))
        os.chmod(agent.socket, 0o666)  # as it is where there are no access control lists
        before = len(os.listdir(f"/proc/{agent.process.pid}/fd"))
        pid = self.hand_over(agent)
        agent.wait_for(rb"error: .*process %d of user 7331 may not talk.*7331 in allow-uids.*--allow-uid" % pid)
        end = time.monotonic() + PATIENCE  # its process lets go when the engine has told it to
        while len(os.listdir(f"/proc/{agent.process.pid}/fd")) != before:
            self.assertLess(time.monotonic(), end, "the stranger's connection is kept")
        self.assertFalse([line for line in agent.seen if b"serving" in line])

    def test_only_who_is_permitted_can_connect_at_all(self):
        agent = self.start("--allow-uid", str(STRANGER + 1), "--allow-uid", str(STRANGER + 2))
        connect = "import socket, sys; sys.exit(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]))"

        def result_of(uid):
            return subprocess.run(["/usr/bin/python3", "-c", connect, agent.socket], user=uid, check=False).returncode

        self.assertEqual([result_of(uid) for uid in (STRANGER, STRANGER + 1, STRANGER + 2, STRANGER + 3)],
                         [errno.EACCES, 0, 0, errno.EACCES])

    def test_keeps_another_user_out_by_the_mode_where_nobody_else_is_permitted(self):
        agent = self.start()
        self.assertEqual(os.stat(agent.socket).st_mode & 0o777, 0o600)

    def test_serves_a_user_who_is_permitted(self):
        agent = self.start("--allow-uid", str(STRANGER), "--allow-uid", "9999")
        self.hand_over(agent)
        agent.wait_for(rb"container container: (serving it .*of user 7331|its connections)")
        agent.wait_for(rb"container container: ended")

    def test_serves_a_container_behind_ten_thousand_connections_that_say_nothing(self):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < CROWD + 500:
            self.skipTest(f"needs {CROWD + 500} descriptors, has {hard}")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        agent = self.start()
        processes = agent.process.pid, self.engine_of(agent.process.pid)
        held = [len(os.listdir(f"/proc/{pid}/fd")) for pid in processes]
        crowd = []
        self.addCleanup(lambda: [one.close() for one in crowd])
        for number in range(CROWD):
            crowd.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            crowd[-1].connect(agent.socket)
            if number % 100 == 0:
                for pid, at_first in zip(processes, held):
                    self.assertLessEqual(len(os.listdir(f"/proc/{pid}/fd")) - at_first, MOST_CONNECTIONS)
        self.hand_over(agent, "behind", user=0)
        agent.wait_for(rb"container behind: (serving it|its connections)")
        agent.wait_for(rb"container behind: ended")

    def test_a_user_who_is_permitted_and_sends_nonsense_does_not_fill_the_log(self):
        agent = self.start("--allow-uid", str(STRANGER))
        began = time.monotonic()
        nonsense = ("import socket, sys\n"
                    "for _ in range(300):\n"
                    "    with socket.socket(socket.AF_UNIX) as agent:\n"
                    "        agent.connect(sys.argv[1])\n"
                    "        agent.send(b'nonsense')\n"
                    "        try:\n"
                    "            agent.recv(1)\n"
                    "        except ConnectionResetError:\n"
                    "            pass\n")  # closed; its last byte may not have been taken out

        def send_as(uid):
            subprocess.run([sys.executable, "-c", nonsense, agent.socket], user=uid, check=True, timeout=PATIENCE)

        send_as(STRANGER)
        # Nobody else pays for it, and it is told how much was not.
        send_as(0)
        agent.wait_for(rb"error: container of process \d+ \(from user 0\): container state: does not begin with")
        while not any(b"user 7331 has handed over" in line for line in agent.seen):
            self.assertLess(time.monotonic() - began, PATIENCE)
            send_as(STRANGER)
        # Seen, not waited for: on a slow machine that line may have come before that of user 0.
        whole = rb"warning: user 7331 has handed over \d+ times more what is no container state; left out here"
        self.assertTrue([line for line in agent.seen if re.search(whole, line)], agent.seen)
        told = [line for line in agent.seen if b"from user 7331): container state: does not begin" in line]
        self.assertLessEqual(len(told), 20 + time.monotonic() - began + 1)  # tools/log_budget.h

    def test_no_id_of_a_container_does_anything_to_the_log(self):
        agent = self.start()
        for container_id in HOSTILE_IDS:
            with self.subTest(id=container_id[:20]):
                self.hand_over(agent, container_id, user=0)
                agent.wait_for(rb"info: container .*: serving it")
                agent.wait_for(rb"info: container .*: ended")
        agent.stop()
        start = re.compile(rb"\A20\d\d-\d\d-\d\dT[0-9:.+]* (info|warning|error|debug): ")
        for line in agent.seen:
            self.assertRegex(line, start)
            self.assertRegex(line, rb"\A[ -~]*\n\Z")
            self.assertLess(len(line), 4000)
        self.assertFalse([line for line in agent.seen if b": two" in line and b"\\x0d\\x0a2026" not in line])

    @staticmethod
    def engine_of(keeper):
        """The keeper's child is the starter, whose child is the engine."""
        def children(pid):
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                return [int(child) for child in file.read().split()]
        return children(children(keeper)[0])[0]

    def test_every_thread_of_the_agent_is_confined(self):
        agent = self.start()
        agent.wait_for(rb"info: confinement: capabilities .*no_new_privs; a seccomp filter")
        engine = self.engine_of(agent.process.pid)
        tasks = [(engine, task) for task in os.listdir(f"/proc/{engine}/task")]
        self.assertGreater(len(tasks), 2)
        tasks.append((agent.process.pid, agent.process.pid))  # the keeper
        most = sum(1 << bit for bit in (5, 10, 19, 21, 39))  # those of core/confinement.cc
        for pid, task in tasks:
            with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as file:
                status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"), status["Name"])
            self.assertEqual(int(status["CapPrm"], 16) & ~most, 0, status["Name"])
            self.assertEqual(int(status["CapInh"], 16), 0)
            if task != str(engine):
                self.assertFalse(int(status["CapEff"], 16) & 1 << 21, "only the control thread enters networks")
                self.assertFalse(int(status["CapEff"], 16) & 1 << 5, "only the control thread kills containers")


def main():
    global PROGRAM  # pylint: disable=global-statement
    if sys.argv[1] == "--runtime":
        return act_as_runtime(sys.argv[2], sys.stdin.read())
    if sys.argv[-1] != "--inside":
        return subprocess.run([ARENA, "--", sys.executable, *sys.argv, "--inside"], check=False).returncode
    PROGRAM = sys.argv[1]
    return 0 if unittest.main(argv=sys.argv[:1] + ["-v"], exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
