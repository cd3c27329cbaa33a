#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A container under runc with our profile on top of a real one: the listener arrives, and so does a connect.

Usage: profile_under_runc.py SHUNT [BASE]. Exits with 77 and a reason where it cannot run. The container's connect is answered
with an errno that no network would give, and the program in it has to see just that.
"""

import errno
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading

NOTIF_RECV = 0xC0502100  # _IOWR('!', 0, struct seccomp_notif), 80 bytes
NOTIF_SEND = 0xC0182101  # _IOWR('!', 1, struct seccomp_notif_resp), 24 bytes
CONTINUE = 1
CONNECT = 42
BUSYBOX = "/usr/bin/busybox"
DEADLINE = 60


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


class Receiver(threading.Thread):
    """Takes one listener as an agent would and answers what comes until the last task has left."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.state = b""
        self.connects = 0
        self.others = 0
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(path)
        self.server.listen(1)

    def run(self):
        connection, _ = self.server.accept()
        data, fds, _, _ = socket.recv_fds(connection, 65536, 8)
        self.state = data
        listener = fds[0]
        poll = select.poll()
        poll.register(listener, 1)
        while True:
            events = poll.poll(DEADLINE * 1000)
            if not events or not events[0][1] & 1:
                return
            notification = bytearray(80)
            try:
                fcntl.ioctl(listener, NOTIF_RECV, notification)
            except FileNotFoundError:
                continue  # the caller is gone
            identity, _pid, _flags, number = struct.unpack_from("=QIIi", notification)
            if number == CONNECT:
                self.connects += 1
                answer = struct.pack("=QqiI", identity, 0, -errno.EHOSTDOWN, 0)
            else:
                self.others += 1
                answer = struct.pack("=QqiI", identity, 0, 0, CONTINUE)
            try:
                fcntl.ioctl(listener, NOTIF_SEND, answer)
            except FileNotFoundError:
                pass


def make_bundle(bundle, profile):
    root = os.path.join(bundle, "rootfs")
    for folder in ("bin", "proc", "sys", "dev", "tmp", "etc"):
        os.makedirs(os.path.join(root, folder))
    shutil.copy(BUSYBOX, os.path.join(root, "bin/busybox"))
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    path = os.path.join(bundle, "config.json")
    with open(path) as file:
        config = json.load(file)
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/busybox", "nc", "127.0.0.1", "9"]
    config["linux"]["seccomp"] = profile
    with open(path, "w") as file:
        json.dump(config, file)


def main():
    shunt = os.path.abspath(sys.argv[1])
    base = sys.argv[2:3]
    if os.getuid() != 0:
        skip("runc needs root here")
    if not shutil.which("runc"):
        skip("runc is not installed")
    if not os.path.exists(BUSYBOX):
        skip("busybox-static is not installed")
    if base and not os.path.exists(base[0]):
        skip(base[0] + " is not there: install golang-github-containers-common")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "agent.sock")
        command = [shunt, "profile", "--listener", path, "--metadata", "test=1"]
        if base:
            command += ["--base", base[0]]
        profile = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        make_bundle(folder, profile)
        receiver = Receiver(path)
        receiver.start()
        name = "shunt-profile-%d" % os.getpid()
        container = subprocess.Popen(["runc", "--root", os.path.join(folder, "state"), "run", name], cwd=folder,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                     text=True)
        try:
            output, _ = container.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            subprocess.run(["runc", "--root", os.path.join(folder, "state"), "delete", "-f", name])
            container.send_signal(signal.SIGKILL)
            output, _ = container.communicate()
            sys.exit("the container did not end within %d s; its output: %r" % (DEADLINE, output))
        print("container:", output.strip(), "| status", container.returncode)
        print("state:", receiver.state.decode())
        print("notifications:", receiver.connects, "connect,", receiver.others, "others")
        assert json.loads(receiver.state)["metadata"] == "shunt.traps=1;test=1"
        assert receiver.connects == 1, "exactly one connect was made"
        assert os.strerror(errno.EHOSTDOWN) in output, "the program has to see our errno"
        assert container.returncode == 1


if __name__ == "__main__":
    main()
