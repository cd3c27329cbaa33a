# SPDX-License-Identifier: Apache-2.0
"""What tests with real runtimes share: an agent, containers of a runtime, and the way into an arena."""

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ARENA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "arena")
BUSYBOX = "/usr/bin/busybox"
PATIENCE = 20  # seconds; nothing here takes one
SKIP = 77
TRAPS = ("connect", "bind", "mkdir")
ARGS = argparse.Namespace()  # filled in by main()


class Agent:
    """A running agent, its log line by line."""

    def __init__(self, folder, tag, *options, environment=None, user=None, before=None):
        self.tag = tag
        self.socket = os.path.join(folder, "agent.sock")
        ready, ready_write = os.pipe()
        self.process = subprocess.Popen(
            [ARGS.agent, "agent", "--socket", self.socket, "--ready-fd", str(ready_write), *options],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=[ready_write], text=True,
            env={**os.environ, **(environment or {})}, user=user, group=user,
            extra_groups=None if user is None else [], preexec_fn=before)
        os.close(ready_write)
        self.lines = []
        self.fresh = queue.Queue()
        self.collector = threading.Thread(target=self._collect, daemon=True)
        self.collector.start()
        with open(ready, "rb") as pipe:
            self.ready = pipe.read()  # up to the end: the agent closes its side

    def _collect(self):
        for line in self.process.stderr:
            self.lines.append(line)
            self.fresh.put(line)

    def wait_for(self, pattern):
        """The first line not yet waited for that matches; fails if there is none in time.

        `container NAME` stands for the container that a test calls so.
        """
        pattern = re.sub(r"container (\w+)", rf"container \1-{self.tag}", pattern)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self.fresh.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                log = "".join(self.lines)
                raise AssertionError(f"no line of the agent matches {pattern!r}:\n{log}") from None
            if re.search(pattern, line):
                return line

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.collector.join(PATIENCE)
            self.process.stderr.close()


class RuntimeCase(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        # Runtimes make control groups by the container's name, machine-wide: no two tests may share one.
        self.tag = os.urandom(4).hex()
        self.rootfs = os.path.join(self.folder, "rootfs")
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            os.makedirs(os.path.join(self.rootfs, name))
        shutil.copy(BUSYBOX, os.path.join(self.rootfs, "bin"))
        for applet in ("sh", "mkdir", "chmod", "sleep", "echo", "nc", "true", "time", "ls", "stat", "touch", "wc"):
            os.symlink("busybox", os.path.join(self.rootfs, "bin", applet))

    def start_agent(self, *options, **keywords):
        agent = Agent(self.folder, self.tag, *options, **keywords)
        self.addCleanup(agent.stop)
        self.assertEqual(agent.ready, b"\x01", "one byte when ready, then the end:\n" + "".join(agent.lines))
        return agent

    def runtime_command(self, command, *options, name):
        root = os.path.join(self.folder, "state")
        return ["timeout", "-s", "KILL", str(PATIENCE), ARGS.runtime, "--root", root, command, *options,
                f"{name}-{self.tag}"]

    def wait_until(self, condition, what):
        """Polls, for what tells nobody that it has come about."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.005)

    def runtime(self, command, name, *arguments, **keywords):
        """Runs the runtime on a container, to its end."""
        return subprocess.run([*self.runtime_command(command, name=name), *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              **keywords)

    def delete(self, name):
        subprocess.run(self.runtime_command("delete", "--force", name=name), stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    def bundle(self, name, socket, command, metadata=None, annotations=None, traps=TRAPS, change=None):
        """The folder of a container whose `traps` are sent to the socket; `change` may change its configuration."""
        folder = os.path.join(self.folder, name)
        os.makedirs(folder)
        rootless = ["--rootless"] if os.getuid() != 0 else []
        subprocess.run([ARGS.runtime, "spec", *rootless], cwd=folder, check=True)
        path = os.path.join(folder, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config["process"]["terminal"] = False
        config["process"]["args"] = ["sh", "-c", command]
        config["root"] = {"path": self.rootfs, "readonly": False}
        config["annotations"] = annotations or {}
        config["linux"]["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "listenerPath": socket,
            "syscalls": [{"names": list(traps), "action": "SCMP_ACT_NOTIFY"}],
        }
        if metadata is not None:
            config["linux"]["seccomp"]["listenerMetadata"] = metadata
        if change is not None:
            change(config)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return folder

    def run_container(self, name, agent, **keywords):
        command = f"mkdir /tmp/{name} && echo made"
        return self.runtime("run", name, cwd=self.bundle(name, agent.socket, command, **keywords))

    def execute(self, name, number=0):
        """Executes a program in a running container."""
        result = self.runtime("exec", name, "sh", "-c", f"mkdir /tmp/{name}-{number} && echo made")
        if "SYS_PIDFD_GETFD syscall: operation not permitted" in result.stderr:
            self.skipTest("this runc cannot take the listener of a rootless exec: " + result.stderr.strip())
        return result

    def start_container(self, name, agent, program="sleep 1000", marker=None, **keywords):
        """Starts a container that stays until it is killed, or until its program has ended.

        `marker` is what becomes of its first mkdir, of the container's name in /tmp.
        """
        marker = marker or name
        output = os.path.join(self.folder, name + ".out")
        folder = self.bundle(name, agent.socket, f"mkdir /tmp/{name} && {program}", **keywords)
        with open(output, "w", encoding="utf-8") as file:
            # Not through self.runtime(): what stays behind would hold the pipes of its output.
            status = subprocess.run(self.runtime_command("run", "-d", name=name), cwd=folder,
                                    stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False)
        with open(output, encoding="utf-8") as file:
            self.assertEqual(status.returncode, 0, file.read())
        self.addCleanup(self.delete, name)
        # `run -d` may return before the container's program has been started, and until then an exec fails.
        self.wait_until(lambda: os.path.exists(os.path.join(self.rootfs, "tmp", marker)),
                        "the container's program does not get on")

    def assert_served(self, result):
        self.assertEqual((result.returncode, result.stdout), (0, "made\n"), result.stderr)


def main():
    """What the test that was started has instead of unittest.main()."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agent", required=True)
    parser.add_argument("--guest", help="a static program of the test's, for its containers")
    parser.add_argument("--runtime", required=True, choices=["runc", "crun"])
    parser.add_argument("--as", dest="who", required=True, choices=["root", "user"])
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    rest = parser.parse_known_args(namespace=ARGS)[1]
    for program in (ARGS.runtime, BUSYBOX, "newuidmap"):
        if shutil.which(program) is None:
            print(f"skipped: {program} is not installed")
            return SKIP
    if not ARGS.inside:
        user = ["--user"] if ARGS.who == "user" else []
        again = [sys.executable, *sys.argv, "--inside"]
        return subprocess.run([ARENA, *user, "--", *again], check=False).returncode
    return 0 if unittest.main("__main__", argv=[sys.argv[0], "-v", *rest], exit=False).result.wasSuccessful() else 1
