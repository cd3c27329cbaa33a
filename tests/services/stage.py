# SPDX-License-Identifier: Apache-2.0
"""Backends that come and go, on the arena's host: what the tests of services share."""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

HOST = os.environ.get("ARENA_HOST", "203.0.113.1")
DEADLINE = 30  # seconds

# Connects again and again, blocking, for so many seconds; prints how many connects failed, how many connections were reset
# later, and how many answers came.
PYTHON_CLIENT = textwrap.dedent("""
    import socket, sys, time
    host, port, end = sys.argv[1], int(sys.argv[2]), time.monotonic() + int(sys.argv[3])
    failed = reset = answers = 0
    while time.monotonic() < end:
        s = socket.socket()
        try:
            s.connect((host, port))
        except OSError as error:
            failed += 1
            print("connect:", error, file=sys.stderr)
            continue
        try:
            s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            data = b""
            while chunk := s.recv(4096):
                data += chunk
            answers += b"200 OK" in data
            reset += b"200 OK" not in data
        except OSError:
            reset += 1
        s.close()
    print(failed, reset, answers)
""")


def arguments(*needed):
    """--shunt, and what is left of the command line for unittest. Ends here if one of these programs is missing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shunt", required=True, type=os.path.abspath)
    known, rest = parser.parse_known_args()
    for program in needed:
        if shutil.which(program) is None:
            print(f"skipped: {program} is not installed (tools/install-packages test)")
            sys.exit(77)
    socket.setdefaulttimeout(10)
    return known, rest


class Backend:
    """A server that is started, killed and started again at one address."""

    def __init__(self, command, port):
        self.command = command
        self.port = port
        self.process = None

    @property
    def address(self):
        return f"{HOST}:{self.port}"

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + DEADLINE
        while not self.listens():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{self.command[0]} does not listen on {self.address}")
            time.sleep(0.005)

    def listens(self):
        with socket.socket() as probe:  # /proc/net/tcp may have some ten thousand lines by now
            probe.settimeout(DEADLINE)
            return probe.connect_ex((HOST, self.port)) == 0

    def quit(self):
        """As a server ends that is asked to: it takes no more connections, and answers those that it has."""
        os.kill(self.process.pid, signal.SIGQUIT)
        self.process.wait(DEADLINE)
        self.process = None

    def kill(self):
        """With everything it has started; nothing listens afterwards."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        end = time.monotonic() + DEADLINE
        while self.listens():
            if time.monotonic() > end:
                raise AssertionError(f"{self.address} still listens")
            time.sleep(0.001)
        self.process = None


def nginx(folder, port, log="off"):
    """An nginx that answers with its port, in a folder of its own. `log`: a file that gets a line for each answer."""
    place = tempfile.mkdtemp(prefix=f"nginx-{port}-", dir=folder)
    path = os.path.join(place, "conf")
    with open(path, "w") as file:
        file.write(f"""daemon off; worker_processes 1; pid {place}/pid; error_log /dev/null;
            events {{ worker_connections 4096; }}
            http {{ access_log {log}; client_body_temp_path {place}/b; proxy_temp_path {place}/p;
                    fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
                    server {{ listen {HOST}:{port} backlog=4096; location / {{ return 200 "{port}\\n"; }} }} }}""")
    return Backend(["nginx", "-e", "/dev/null", "-c", path], port)


def redis(port):
    return Backend(["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--protected-mode", "no",
                    "--daemonize", "no"], port)


class Killer(threading.Thread):
    """Kills one backend after the other and starts it again, as long as it is in use. Never two at once."""

    def __init__(self, backends, seed, down=0.03, up=0.05):
        super().__init__()
        self.backends = backends
        self.chance = random.Random(seed)
        self.down, self.up = down, up
        self.kills = 0
        self.failure = None
        self.over = threading.Event()

    def run(self):
        try:
            while not self.over.wait(self.up):
                backend = self.chance.choice(self.backends)
                backend.kill()
                self.kills += 1
                self.over.wait(self.down)
                backend.start()
        except BaseException as error:  # pylint: disable=broad-except  # told by __exit__
            self.failure = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        if self.failure is not None:
            raise self.failure


def write_services(path, address, backends, more=""):
    """An agent's configuration with one service."""
    listed = "".join(f"      - {backend.address}\n" for backend in backends)
    with open(path, "w") as file:
        file.write(f"services:\n  - name: web\n    address: {address}\n{more}    backends:\n{listed}")
