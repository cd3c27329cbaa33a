#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of servers in containers, on a real stage: that one is there when it is said to be, and is gone when it is stopped."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
import unittest

sys.dont_write_bytecode = True
import peers  # noqa: E402
import places  # noqa: E402
import stage_link  # noqa: E402
from scenarios.processes import processes_below  # noqa: E402
from scenarios.servers import listens, serve  # noqa: E402
from scenarios.sides import sides  # noqa: E402
from scenarios.stage import HOST, Failed, Stage, Unavailable  # noqa: E402

PATIENCE = 20  # seconds
# Listens when that file is there, and not before.
SLOW = textwrap.dedent("""
    import os, signal, socket, sys
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process of a pid namespace does not end by it else
    address, port, go = sys.argv[1:]
    while not os.path.exists(go):
        pass
    with socket.create_server((address, int(port))) as server:
        while True:
            with server.accept()[0] as client:
                client.recv(1)
                client.sendall(f"{os.getuid()} {os.stat('/proc/self/ns/net').st_ino}".encode())
    """)


def eventually(what):
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            raise AssertionError("it did not come about")
        time.sleep(0.005)


class Published(unittest.TestCase):
    next_port = 23000

    def setUp(self):
        self.stage = Stage(os.environ["STAGE"], argparse.Namespace(tiny=True, seconds=1, shunt_options="", net="slirp4netns",
                                                                     lock=os.environ["LOCK"], path_of_shunt=os.environ["PATH"]))
        self.addCleanup(self.stage.stop_everything)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        Published.next_port += 1
        self.port = str(self.next_port)

    def where(self, network):
        try:
            return sides(self.stage, f"{network}-published", self.port)
        except Unavailable as error:
            self.skipTest(str(error))

    def start(self, where):
        go = os.path.join(self.folder, "go")

        def release():
            # A network program forwards from the beginning on, the server is not ready then.
            if where.network in ("slirp4netns", "pasta"):
                eventually(lambda: listens(self.port))
            eventually(lambda: self.stage.servers and self.stage.servers[0].servers())
            with open(go, "w", encoding="ascii"):
                pass

        thread = threading.Thread(target=release)
        thread.start()
        self.addCleanup(thread.join)
        return serve(self.stage, ["/usr/bin/python3", "-c", SLOW, where.address, self.port, go], self.port, self.folder, where=where)

    def said(self):
        """slirp4netns resets or ends one connection or another (seen with 1.2.0): that is not what is tested."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection((HOST, int(self.port)), timeout=PATIENCE) as client:
                    client.sendall(b"?")
                    words = client.recv(100).decode().split()
                    if words or time.monotonic() > deadline:
                        return words
            except ConnectionResetError:
                if time.monotonic() > deadline:
                    raise

    def check(self, network):
        server = self.start(self.where(network))
        user, its_network = self.said()
        self.assertEqual(int(user), os.getuid())
        self.assertNotEqual(int(its_network), os.stat("/proc/self/ns/net").st_ino)
        container = processes_below(server.pid)
        self.assertIn("python3", container.values())
        self.stage.stop(server)
        eventually(lambda: not listens(self.port))
        eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in container))

    def test_a_server_is_there_when_it_listens_itself_and_gone_when_it_was_stopped(self):
        for network in ("slirp4netns", "pasta", "shunt", "bypass4netns"):
            with self.subTest(network):
                self.setUp()
                self.check(network)
                self.doCleanups()

    def test_a_port_that_cannot_be_forwarded_is_told(self):
        with socket.create_server((HOST, int(self.port))):
            where = self.where("slirp4netns")
            with self.assertRaises(Failed) as raised:
                serve(self.stage, ["/usr/bin/python3", "-c", "input()"], "1", self.folder, where=where)
        self.assertIn(f"slirp4netns does not forward: {HOST}:{self.port}", str(raised.exception))


if __name__ == "__main__":
    if "STAGE" in os.environ:
        unittest.main(verbosity=2)
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        files = stage_link.what_runs_there(os.environ["BENCH_BUILD"], os.environ["SHUNT"], peers.on_path_only([]))
        with stage_link.packed(files) as archive, tarfile.open(fileobj=archive) as pack:
            pack.extractall(directory)
        lock = stage_link.LentLock(os.environ["SHUNT"]) if os.getuid() == 0 else None
        path = os.pathsep.join([os.path.join(directory, "peers"), peers.STAGE_PATH])
        done = subprocess.run([os.path.join(places.HERE, "stage"), "env", f"STAGE={directory}", f"PATH={path}",
                               f"LOCK={lock.socket if lock else ''}", "/usr/bin/python3",
                               os.path.join(directory, "bench", os.path.basename(__file__))], cwd="/tmp", check=False)
        if lock:
            lock.close()
    sys.exit(done.returncode)
