#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Engines are killed, or have no descriptors left, just while a runtime hands a container's listener over.

    tests/support/arena -- tests/survival/handover_test.py SHUNT

The container's first trapped call must be answered, whatever happens to the engine. It would wait for ever:
it has a copy of its listener, as `runc init` has, so the listener never hangs up. One test kills at random moments
(SHUNT_SURVIVAL=full: many more of them), the other behind each system call that a hand-over takes.
"""

import array
import ctypes
import json
import os
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from seccomp_listener import make_listener  # noqa: E402  (found by the line above)

PATIENCE = 20
LOST_AFTER = 3  # seconds
KILLS = 1000 if os.environ.get("SHUNT_SURVIVAL") == "full" else 40
TRAPPED = 110  # getppid
SKIP = 77


def container(path, name):
    """Hands itself over and makes one trapped call."""
    listener = make_listener(TRAPPED)
    if listener < 0:
        os._exit(SKIP)
    state = {"ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": os.getpid(),
             "state": {"ociVersion": "1.0.2", "id": name, "status": "creating", "pid": os.getpid(), "bundle": "/"}}
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.connect(path)
    os.write(1, b"!")
    agent.sendmsg([json.dumps(state).encode()],
                  [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    agent.close()
    answered = os.getppid() > 0
    os.write(1, b"." if answered else b"?")
    sys.stdin.read(1)
    os._exit(0 if answered else 1)


class Traced:
    """The first thread of a process, which goes from one system call to the next as told."""
    SYSCALL, SEIZE, INTERRUPT = 24, 0x4206, 0x4207
    SYSGOOD, EXITKILL = 1, 1 << 20
    WALL = 0x40000000

    def __init__(self, pid):
        self.pid, self.lives, self.inside = pid, True, False
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.ptrace(self.SEIZE, self.SYSGOOD | self.EXITKILL)
        self.ptrace(self.INTERRUPT, 0)
        self.go_on(os.waitpid(pid, self.WALL)[1])
        while not self.inside:  # then it waits for what comes
            self.go_on(os.waitpid(pid, self.WALL)[1])

    def ptrace(self, request, data):
        if self.libc.ptrace(request, self.pid, None, data) != 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request}")

    def go_on(self, status):
        """Past this stop. True if that was the end of a system call."""
        number = os.WSTOPSIG(status)
        if number == signal.SIGTRAP | 0x80:
            self.inside = not self.inside
            self.ptrace(self.SYSCALL, 0)
            return not self.inside
        self.ptrace(self.SYSCALL, 0 if status >> 16 else number)
        return False

    def step(self):
        """If it has stopped: past that. True if that was the end of a system call, None if it has not stopped."""
        pid, status = os.waitpid(self.pid, self.WALL | os.WNOHANG) if self.lives else (0, 0)
        return self.go_on(status) if pid else None

    def kill(self):
        if self.lives:
            os.kill(self.pid, signal.SIGKILL)
            while os.WIFSTOPPED(os.waitpid(self.pid, self.WALL)[1]):
                pass
        self.lives = False


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


class Handover(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.socket = os.path.join(folder.name, "agent.sock")
        self.log = open(os.path.join(folder.name, "log"), "w+", encoding="utf-8", errors="replace")
        self.addCleanup(self.log.close)
        ready, ready_write = os.pipe()
        self.agent = subprocess.Popen([SHUNT, "agent", "--socket", self.socket, "--ready-fd", str(ready_write)],
                                      stderr=self.log, pass_fds=[ready_write])
        os.close(ready_write)
        self.addCleanup(self.agent.wait, PATIENCE)
        self.addCleanup(self.agent.terminate)
        with open(ready, "rb") as pipe:
            self.assertEqual(pipe.read(), b"\x01")
        self.killed = set()
        self.random = random.Random(os.environ.get("SHUNT_SURVIVAL_SEED", "1"))

    def text(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()[-3000:]

    def engine(self):
        end = time.monotonic() + PATIENCE
        starter = children(self.agent.pid)[0]
        while not (found := set(children(starter)) - self.killed):
            self.assertLess(time.monotonic(), end, "there is no engine")
        return found.pop()

    def test_no_listener_is_lost_while_it_is_handed_over(self):
        lost = set()
        for number in range(KILLS):
            pid = self.engine()
            self.killed.add(pid)
            engine = os.pidfd_open(pid)
            with subprocess.Popen([sys.executable, __file__, "--container", self.socket, f"c{number}"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as runtime:
                runtime.stdout.read(1)  # it is connected
                end = time.perf_counter() + self.random.uniform(0, 0.001)
                while time.perf_counter() < end:
                    pass
                signal.pidfd_send_signal(engine, signal.SIGKILL)
                os.close(engine)
                try:
                    status = runtime.wait(LOST_AFTER)
                except subprocess.TimeoutExpired:
                    runtime.kill()
                    lost.add(f"c{number}:")
                    continue
                if status == SKIP:
                    self.skipTest("the kernel gives no listener here")
                self.assertEqual(status, 0, self.text())
        self.log.seek(0)
        log = self.log.read()
        self.assertNotIn("cannot be served", log)
        # One whose container ends before the next engine comes to its message may be served, and end, twice.
        ends = {line.split()[3] for line in log.splitlines() if ": ended (" in line}
        self.assertEqual(ends | lost, {f"c{number}:" for number in range(KILLS)})
        self.assertEqual(lost, set(), self.text())
        print(f"{KILLS} engines killed during a hand-over; no listener was lost", flush=True)

    def status(self):
        return subprocess.Popen([SHUNT, "ctl", "--socket", self.socket, "status", "--json"], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL)

    def serving_engine(self):
        while True:
            with self.status() as asked:
                told = asked.communicate(timeout=PATIENCE)[0]
            if asked.returncode == 0 and (pid := json.loads(told)["engine_pid"]) not in self.killed:
                return pid

    def hand_over_while_traced(self, name, most):
        """The engine dies behind that many system calls of its control thread, or at the end. Returns how many it made,
        and whether the container was lost."""
        engine = Traced(self.serving_engine())
        self.killed.add(engine.pid)
        self.addCleanup(engine.kill)
        calls = 0

        def until(condition):
            nonlocal calls
            end = time.monotonic() + LOST_AFTER
            while not condition() and time.monotonic() < end:
                if (ended := engine.step()) is None:
                    select.select([], [], [], 0.0005)  # it has nothing to do, or is at it
                elif ended and (calls := calls + 1) == most:
                    engine.kill()
            return condition()

        with subprocess.Popen([sys.executable, __file__, "--container", self.socket, name], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as runtime:
            said = b""

            def answered():
                nonlocal said
                if select.select([runtime.stdout], [], [], 0)[0]:
                    said += os.read(runtime.stdout.fileno(), 1)
                return said.endswith((b".", b"?")) or runtime.poll() is not None
            until(answered)
            if runtime.returncode == SKIP:
                self.skipTest("the kernel gives no listener here")
            if said != b"!.":  # it was turned away, got a wrong answer, or none
                engine.kill()
                runtime.kill()
                return calls, True
            while True:
                with self.status() as asked:
                    self.assertTrue(until(lambda: asked.poll() is not None), "no engine says how it does")
                    if asked.returncode == 0:
                        told = json.loads(asked.stdout.read())
                        break
            served = [one for one in told["containers"] if one["name"] == name]
            self.assertEqual(len(served), 1, f"killed behind {most} system calls: {served}")
            engine.kill()
            runtime.stdin.close()
            self.assertEqual(runtime.wait(PATIENCE), 0)
        return calls, False

    def test_no_listener_is_lost_whatever_system_call_an_engine_dies_behind(self):
        calls, lost = self.hand_over_while_traced("whole", 0)
        self.assertFalse(lost, self.text())
        self.assertGreater(calls, 20)
        losses = [most for most in range(1, calls + 1) if self.hand_over_while_traced(f"c{most}", most)[1]]
        self.assertEqual(losses, [], self.text())
        self.log.seek(0)
        self.assertNotIn("cannot be served", self.log.read())
        print(f"engines killed behind each of the {calls} system calls of a hand-over; no listener was lost", flush=True)

    def test_no_listener_is_lost_for_want_of_descriptors(self):
        engine = self.engine()
        count = len(os.listdir(f"/proc/{engine}/fd"))
        # A container takes two descriptors: with one of these rooms there is, at last, place for its listener alone.
        logs = [self.fill_up(engine, count + room) for room in (10, 11)]
        self.assertTrue(any("no descriptor is free for its memory" in log for log in logs), logs)
        self.assertEqual(self.engine(), engine)
        print("no listener was lost for want of a descriptor", flush=True)

    def fill_up(self, engine, limit):
        """Containers come until there is no descriptor for the last; it is served when the others have ended."""
        resource.prlimit(engine, resource.RLIMIT_NOFILE, (limit, resource.prlimit(engine, resource.RLIMIT_NOFILE)[1]))
        before = os.fstat(self.log.fileno()).st_size
        log = lambda: os.pread(self.log.fileno(), 1 << 20, before).decode(errors="replace")
        containers, short = [], "container's listener, which has to wait"
        end = time.monotonic() + PATIENCE
        while short not in log():
            self.assertLess(time.monotonic(), end, log())
            containers.append(subprocess.Popen(
                [sys.executable, __file__, "--container", self.socket, f"c{len(containers)}"], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE))
            for step in (containers[-1].wait, containers[-1].stdout.close, containers[-1].kill):
                self.addCleanup(step)
            self.assertEqual(containers[-1].stdout.read1(1), b"!")
            while not select.select([containers[-1].stdout], [], [], 0.01)[0] and short not in log():
                self.assertLess(time.monotonic(), end, log())
        for one in containers:
            self.assertTrue(select.select([one.stdout], [], [], PATIENCE)[0], log())
            self.assertEqual(one.stdout.read1(1), b".")
            one.stdin.close()
            self.assertEqual(one.wait(PATIENCE), 0)
        while log().count(": ended") < len(containers):
            self.assertLess(time.monotonic(), end, log())
        return log()


if __name__ == "__main__":
    if sys.argv[1] == "--container":
        container(sys.argv[2], sys.argv[3])
    SHUNT = sys.argv[1]
    sys.exit(not unittest.main(argv=sys.argv[:1] + ["-v"] + sys.argv[2:], exit=False).result.wasSuccessful())
