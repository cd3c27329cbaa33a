#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whoever works at a mount, an umount or a device is killed at each system call that it makes on the way.

    mount_crash_test.py --agent PROGRAM --guest PROGRAM --runtime runc|crun --as root|user

Whoever that is: the worker, its companion, the process that this forks to build, the engine. Afterwards the caller has
its answer, and what it has asked for is there once if that was success, and not at all otherwise. SHUNT_SURVIVAL=full:
at each of the calls, before and behind it; else at some of them, which ones says SHUNT_SURVIVAL_SEED. The program in the
container is that of tests/hostile/mounts.
"""

import contextlib
import ctypes
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "runtimes"))
from runtime_case import ARGS, PATIENCE, RuntimeCase, main  # noqa: E402  (found by the line above)

FULL = os.environ.get("SHUNT_SURVIVAL") == "full"
EVERY = 1 if FULL else 6
MOST = 2000  # system calls of one process for one call
CALLS = ["mount", "umount", "umount2", "mknod", "mknodat"]
EIO = 5


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def parent_of(pid):
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0


def name_of(pid):
    return read(f"/proc/{pid}/comm").strip()


class Tree:
    """A process and all that come from it, traced: they stop at the beginning and the end of each system call."""
    SYSCALL, EVENT_MESSAGE, SEIZE, INTERRUPT, SYSCALL_INFO = 24, 0x4201, 0x4206, 0x4207, 0x420e
    OPTIONS = 1 | 2 | 4 | 8 | 1 << 20  # system calls marked, fork, vfork, clone, all die with the tracer
    BEGINNINGS = 1, 2, 3  # events: fork, vfork, clone
    WALL = 0x40000000

    def __init__(self, root):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        self.tids = {}  # to the process
        self.victim = None
        self.stops = self.kill_at = 0
        self.old = set()
        for tid in map(int, os.listdir(f"/proc/{root}/task")):
            self.ptrace(self.SEIZE, tid, self.OPTIONS)
            self.ptrace(self.INTERRUPT, tid, 0)
            self.tids[tid] = root

    def ptrace(self, request, tid, data):
        return self.libc.ptrace(request, tid, None, data) == 0

    def call_of(self, tid):
        """Where it has stopped."""
        info = (ctypes.c_uint64 * 11)()
        self.libc.ptrace(self.SYSCALL_INFO, tid, ctypes.sizeof(info), ctypes.addressof(info))
        if info[0] & 0xff == 1:
            return f"before system call {info[3]}"
        return f"behind a system call that has returned {ctypes.c_int64(info[3]).value}"

    def role(self, process):
        name, parent = name_of(process), name_of(parent_of(process))
        if name == "shunt-mounts":
            return "builder" if parent == "shunt-mounts" else "companion"
        return name.removeprefix("shunt-")

    def arm(self, victim, kill_at):
        """From now on the stops of such a process count, and at one of them it is killed."""
        self.victim, self.stops, self.kill_at, self.last = victim, 0, kill_at, "not killed"
        self.old = set(self.tids.values())

    def counts(self, process):
        if self.victim is None or self.role(process) != self.victim:
            return False
        return process in self.old or (self.victim == "builder" and parent_of(process) in self.old)

    def step(self):
        """Lets everybody go on who has stopped. False: nobody had."""
        went = False
        for tid in list(self.tids):
            try:
                pid, status = os.waitpid(tid, self.WALL | os.WNOHANG)
            except ChildProcessError:
                del self.tids[tid]
                continue
            if pid == 0:
                continue
            went = True
            if not os.WIFSTOPPED(status):
                del self.tids[tid]
                continue
            self.go_on(tid, status)
        # A process that was killed while it forked has told nothing of its child, which waits all the same.
        with contextlib.suppress(ChildProcessError):
            stopped = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG | os.WNOWAIT | self.WALL)
            if stopped is not None and stopped.si_pid not in self.tids:
                self.add(stopped.si_pid)
                went = True
        return went

    def add(self, tid):
        groups = [int(line.split()[1]) for line in read(f"/proc/{tid}/status").splitlines() if line.startswith("Tgid:")]
        self.tids[tid] = groups[0] if groups else tid

    def go_on(self, tid, status):
        number, event = os.WSTOPSIG(status), status >> 16
        if event in self.BEGINNINGS:
            child = ctypes.c_ulong()
            self.ptrace(self.EVENT_MESSAGE, tid, ctypes.addressof(child))
            self.add(child.value)
        if number == signal.SIGTRAP | 0x80 and self.counts(self.tids[tid]):
            self.stops += 1
            if self.stops == self.kill_at:
                self.last = self.call_of(tid)
                os.kill(self.tids[tid], signal.SIGKILL)
                return
        marked = number == signal.SIGTRAP | 0x80 or event
        self.ptrace(self.SYSCALL, tid, 0 if marked else number)


class MountCrash(RuntimeCase):
    def setUp(self):
        super().setUp()
        self.random = random.Random(os.environ.get("SHUNT_SURVIVAL_SEED", "1"))
        shutil.copy(ARGS.guest, os.path.join(self.rootfs, "bin", "mount_attacks"))
        os.makedirs(os.path.join(self.rootfs, "root"))
        os.chmod(self.folder, 0o755)
        self.agent = self.start_agent()
        with open(f"/proc/{self.agent.process.pid}/task/{self.agent.process.pid}/children", encoding="ascii") as file:
            starter = int(file.read().split()[0])
        self.tree = Tree(starter)
        # The engine that is there already is not in the tree.
        for line in read(f"/proc/{starter}/task/{starter}/children").split():
            if name_of(int(line)) == "shunt-engine":
                os.kill(int(line), signal.SIGKILL)
        self.pump(lambda: "engine" in map(self.tree.role, set(self.tree.tids.values())), "no new engine")
        folder = self.bundle("crash", self.agent.socket, "", traps=CALLS, metadata="MOUNT_PROC=true\nMKNOD=/dev/zero",
                             change=self.change)
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "700000:700000", self.rootfs], check=True)
        self.errors = open(os.path.join(self.folder, "errors"), "w+", encoding="utf-8")
        self.addCleanup(self.errors.close)
        command = self.runtime_command("run", name="crash")
        self.container = subprocess.Popen(["timeout", "-s", "KILL", "900", *command[4:]], cwd=folder, stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, stderr=self.errors)
        self.addCleanup(self.end)
        self.assertEqual(self.answer(), "ready")

    def change(self, config):
        config["process"]["args"] = ["/bin/mount_attacks", "calls"]
        linux = config["linux"]
        if not any(space["type"] == "user" for space in linux["namespaces"]):
            linux["namespaces"].append({"type": "user"})
            linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 700000, "size": 65536}]
        for kind in config["process"]["capabilities"].values():
            kind += [name for name in ("CAP_SETFCAP", "CAP_SYS_CHROOT") if name not in kind]

    def end(self):
        self.container.stdin.close()
        try:
            self.pump(lambda: self.container.poll() is not None, "the container does not end")
        finally:
            self.container.kill()
            self.container.stdout.close()
        self.agent.process.terminate()
        self.pump(lambda: self.agent.process.poll() is not None, "the agent does not end")

    def said(self):
        self.errors.seek(0)
        return self.errors.read() + "".join(self.agent.lines[-20:])

    def pump(self, condition, what):
        """Keeps the traced going until `condition`."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: {self.said() if hasattr(self, 'errors') else ''}")
            if not self.tree.step():
                select.select([], [], [], 0.0002)

    def answer(self):
        text = b""

        def complete():
            nonlocal text
            if select.select([self.container.stdout], [], [], 0)[0]:
                piece = os.read(self.container.stdout.fileno(), 1000)
                self.assertNotEqual(piece, b"", self.said())
                text += piece
            return text.endswith(b"\n")
        self.pump(complete, f"{self.doing}: the caller has no answer")
        return text.decode().strip()

    doing = "start"

    def call(self, what):
        os.write(self.container.stdin.fileno(), what.encode() + b"\n")
        return [int(word) for word in self.answer().split()]

    def warm(self, what):
        """All are there who will be needed."""
        self.doing = f"before {what}"
        self.call("clean")
        self.assertEqual(self.call("mount"), [0, 1, 0], self.said())
        if what != "umount":
            self.assertEqual(self.call("umount"), [0, 0, 0], self.said())

    def crash(self, what, victim, at):
        """False: it has made fewer calls."""
        self.warm(what)
        self.doing = f"{what}, {victim} killed at stop {at}"
        self.tree.arm(victim, at)
        error, mounts, node = self.call(what)
        killed = self.tree.stops >= at
        self.doing += f" ({self.tree.last})"
        self.tree.victim = None
        if error == 0:
            self.assertEqual((mounts, node), (0 if what == "umount" else 1, int(what == "mknod")), self.doing)
        else:
            self.assertEqual((mounts, node), (1 if what == "umount" else 0, 0), f"{self.doing}: {os.strerror(error)}")
            # Who builds is not begun again: it may have been killed for what it was to build.
            self.assertEqual((victim, error), ("builder", EIO), f"{self.doing}\n{self.said()}")
        return killed

    def crash_everywhere(self, what, victims):
        for victim in victims:
            every = 1 if victim == "companion" else EVERY  # it makes but few
            at, kills = self.random.randint(1, every), 0
            while at < MOST and self.crash(what, victim, at):
                kills += 1
                at += every
            self.assertGreater(kills, 0, f"no {victim} was killed at {what}")
            print(f"{what}: {victim} killed at {kills} of {self.tree.stops} stops", flush=True)

    def test_mount(self):
        self.crash_everywhere("mount", ("worker", "companion", "builder", "engine"))

    def test_umount(self):
        self.crash_everywhere("umount", ("worker", "engine"))

    def test_mknod(self):
        self.crash_everywhere("mknod", ("worker", "companion", "builder", "engine"))


if __name__ == "__main__":
    sys.exit(main())
