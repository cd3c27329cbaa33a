# SPDX-License-Identifier: Apache-2.0
"""What the tests of published ports stand on: containers that run what a test sends them, clients, and a lock server."""

import argparse
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
ARENA = os.path.join(HERE, "..", "support", "arena")
HOST, HOST6, PEER = "203.0.113.1", "fd00:113::1", "203.0.113.2"
INSIDE = "10.0.2.100"  # the container's own address on its ordinary network
USER = 7331
PATIENCE = 20  # seconds; nothing here takes one
SKIP = 77

# What both sides know. Errors are values: the name of the errno.
COMMON = textwrap.dedent("""
    import ctypes, errno, json, os, select, signal, socket, struct, subprocess, sys, threading, time, urllib.request
    V4, V6 = socket.AF_INET, socket.AF_INET6

    def tried(call, *arguments):
        try:
            result = call(*arguments)
            return "ok" if result is None else result
        except socket.timeout:
            return "timeout"
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))

    def tcp(family=V4, *options):
        s = socket.socket(family, socket.SOCK_STREAM)
        for option in options:
            if option == "V6ONLY":
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            elif option == "DUAL":
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            else:
                s.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)
        return s

    def listener(ip, port, *options):
        s = tcp(V6 if ":" in ip else V4, *options)
        s.bind((ip, port))
        s.listen(64)
        return s

    def connected(ip, port):
        s = tcp(V6 if ":" in ip else V4)
        try:
            s.settimeout(5)
            s.connect((ip, port))
            return s
        except OSError:
            s.close()
            raise

    # "ok", the errno, or "timeout" if nobody answers.
    def reach(ip, port):
        return tried(lambda: connected(ip, port).close())

    # Answers each client of `s`, when it has said something, with the client's address and what the server takes for its
    # own name, until s is shut down. (The pasta of Debian 12 loses what a server says first.)
    def answer(s, word=""):
        def loop():
            while True:
                try:
                    client, where = s.accept()
                    client.recv(1)
                    client.sendall(json.dumps([where[0], client.getsockname()[:2], word]).encode())
                    client.close()
                except OSError:
                    return
        threading.Thread(target=loop, daemon=True).start()
        return s

    # What answer() says: [the client's address, the server's name, word]; or the errno.
    def ask(ip, port):
        def talk():
            with connected(ip, port) as s:
                s.sendall(b"?")
                return json.loads(b"".join(iter(lambda: s.recv(4096), b"")))
        return tried(talk)
""")

GUEST = COMMON + textwrap.dedent("""
    channel = os.fdopen(os.dup(1), "w")
    world = globals()
    for line in sys.stdin:
        code = json.loads(line)
        try:
            try:
                expression = compile(code, "guest", "eval")
            except SyntaxError:
                expression = None
                exec(compile(code, "guest", "exec"), world)
            answer_line = {"value": expression and eval(expression, world)}
            json.dumps(answer_line)
        except OSError as error:
            kind = "value" if expression else "error"
            answer_line = {kind: errno.errorcode.get(error.errno, str(error))}
        except TypeError as error:
            answer_line = {"value": "ok"} if "serializable" in str(error) else {"error": repr(error)}
        except BaseException as error:
            answer_line = {"error": repr(error)}
        channel.write(json.dumps(answer_line) + "\\n")
        channel.flush()
""")
exec(COMMON)  # pylint: disable=exec-used

SHUNT = None  # the program; set before anything is started


def lend(path):
    """A copy that the ordinary user can reach, wherever the build tree lives."""
    copy = os.path.join(os.environ["TMPDIR"], os.path.basename(path))
    if not os.path.exists(copy):
        shutil.copy(path, copy)
        os.chmod(copy, 0o755)
    return copy


class LockServer:
    """The privileged step, as root."""

    def __init__(self, folder):
        self.socket = os.path.join(folder, "lock.sock")
        self.process = subprocess.Popen([SHUNT, "lock-server", "--socket", self.socket],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(self.socket):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("the lock server does not start")
            time.sleep(0.005)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Container:
    """`shunt run` with a Python program inside that does what it is told."""

    def __init__(self, *options, as_root=False, lock="", command=None):
        prefix = [] if as_root else ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--init-groups",
                                     "--inh-caps=-all", "--"]
        self.process = subprocess.Popen(
            [*prefix, lend(SHUNT), "run", "--lock-socket", lock or "/nonexistent", *options, "--",
             *(command or ["/usr/bin/python3", "-c", GUEST])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
            env={**os.environ, "HOME": os.environ["TMPDIR"]})

    def do(self, code):
        """The value of an expression inside, or its errno; "ok" if JSON cannot carry it. Statements must succeed."""
        try:
            self.process.stdin.write(json.dumps(textwrap.dedent(code).strip()) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            self.process.kill()
            raise AssertionError(f"the container says nothing to {code!r}: {self.process.stderr.read()}")
        reply = json.loads(line)
        if "error" in reply:
            raise AssertionError(f"{code}: {reply['error']}")
        return reply["value"]

    def stop(self):
        """Ends it, if it has not ended. What it has said to people."""
        if self.process.stderr.closed:
            return ""
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        errors = self.process.stderr.read()
        for stream in self.process.stdin, self.process.stdout, self.process.stderr:
            stream.close()
        return errors


def far(expression):
    """The value of an expression on the other machine."""
    result = subprocess.run(
        ["nsenter", f"--net={os.environ['ARENA_FAR']}", "/usr/bin/python3", "-c",
         COMMON + f"\nprint(json.dumps({expression}))"],
        timeout=PATIENCE, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise AssertionError(f"{expression} on the other machine: {result.stderr}")
    return json.loads(result.stdout)


def keep_time_wait(sockets):
    """How many connections may stay in TIME_WAIT in the arena. They keep a port from a bind without SO_REUSEADDR,
    which most tests are not about."""
    with open("/proc/sys/net/ipv4/tcp_max_tw_buckets", "w", encoding="ascii") as setting:
        setting.write(str(sockets))


class PublishTest(unittest.TestCase):
    options = ()
    lock = ""

    def setUp(self):
        keep_time_wait(0)

    def start(self, *publish, options=(), **keywords):
        flags = [flag for one in publish for flag in ("-p", one)]
        container = Container(*flags, *self.options, *options, lock=self.lock, **keywords)
        self.addCleanup(container.stop)
        return container

    def keep(self, thing):
        self.addCleanup(thing.close)
        return thing
