#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent that is started again by a service manager that has kept its descriptors is reached on its sockets.

    agent_restart_test.py SHUNT

This program is the manager: it takes what the agent stores ($NOTIFY_SOCKET) and passes it to the next one
($LISTEN_FDS), as systemd does on a restart.
"""

import array
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
SHUNT = ""
PATIENCE = 60  # seconds; nothing here takes one


class Manager:
    """Keeps descriptors by name, and starts agents with them."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "agent.sock")
        self.notify_path = os.path.join(folder, "notify.sock")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.notify_path)
        self.notify.settimeout(1)
        self.stored = []  # (name, descriptor)
        self.agent = None

    def start(self):
        """Returns when the agent is ready."""
        count = len(self.stored)
        above = 100  # so that moving them to 3 and on overwrites none of them
        moved = [os.dup2(fd, above + i, inheritable=False) for i, (_, fd) in enumerate(self.stored)]

        def pass_on():
            for i, fd in enumerate(moved):
                os.dup2(fd, 3 + i, inheritable=True)

        environment = {"NOTIFY_SOCKET": self.notify_path, "LISTEN_FDS": str(count),
                       "LISTEN_FDNAMES": ":".join(name for name, _ in self.stored)}
        # By a shell: its pid, which the agent takes over, is known in the child only.
        command = ["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", SHUNT, "agent", "--fd-store", "--socket", self.path]
        self.agent = subprocess.Popen(command, env={**os.environ, **environment}, preexec_fn=pass_on, close_fds=False,
                                      stdin=subprocess.DEVNULL)
        for fd in moved:
            os.close(fd)
        while not self.take("READY=1"):
            if self.agent.poll() is not None:
                raise RuntimeError(f"the agent has ended with status {self.agent.returncode}")

    def take(self, awaited):
        """Reads one datagram, if there is one in time. True: it is the one that was awaited."""
        try:
            data, ancillary, _, _ = self.notify.recvmsg(4096, socket.CMSG_SPACE(4))
        except TimeoutError:
            return False
        lines = data.decode().split("\n")
        name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "")
        if "FDSTORE=1" in lines:
            fds = array.array("i")
            fds.frombytes(ancillary[0][2])
            os.set_inheritable(fds[0], False)
            self.stored.append((name, fds[0]))
        elif "FDSTOREREMOVE=1" in lines:
            for _, fd in [one for one in self.stored if one[0] == name]:
                os.close(fd)
            self.stored = [one for one in self.stored if one[0] != name]
        return awaited in lines

    def end(self, number):
        self.agent.send_signal(number)
        self.agent.wait(timeout=PATIENCE)
        self.notify.settimeout(0)
        try:
            while True:
                self.take("")
        except BlockingIOError:
            pass
        self.notify.settimeout(1)

    def ask(self):
        """The exit status of `shunt ctl status`."""
        return subprocess.run([SHUNT, "ctl", "--socket", self.path, "status"], stdout=subprocess.DEVNULL,
                              timeout=PATIENCE, check=False).returncode


class AgentRestart(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="shunt-restart-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.manager = Manager(self.folder)
        self.addCleanup(self.close)
        self.manager.start()

    def close(self):
        if self.manager.agent.poll() is None:
            self.manager.end(signal.SIGTERM)
        self.manager.notify.close()

    def is_reached(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE)
            client.connect(self.manager.path)
        self.assertEqual(self.manager.ask(), 0)

    def test_killed_it_keeps_the_very_sockets_that_it_had(self):
        before = os.stat(self.manager.path).st_ino
        for _ in range(3):
            self.manager.end(signal.SIGKILL)
            self.manager.start()
            self.is_reached()
        self.assertEqual(os.stat(self.manager.path).st_ino, before)

    def test_stopped_and_started_it_makes_new_sockets_in_place_of_those_it_has_removed(self):
        for _ in range(2):
            self.manager.end(signal.SIGTERM)
            self.assertFalse(os.path.exists(self.manager.path))
            self.manager.start()
            self.is_reached()


if __name__ == "__main__":
    SHUNT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
