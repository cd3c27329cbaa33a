# SPDX-License-Identifier: Apache-2.0
"""What scenarios work with: where the programs are, commands in an arm, servers of theirs."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

HOST = "203.0.113.1"


class Unavailable(Exception):
    """An arm cannot be tried on this machine."""


class Failed(Exception):
    """An arm was tried and did not give a value."""


class Stage:
    """Commands, servers and where the programs are."""

    def __init__(self, arguments):
        self.directory = arguments.inside
        self.arguments = arguments
        self.servers = []

    def program(self, name):
        return os.path.join(self.directory, name)

    def arm_prefix(self, arm):
        if arm == "native":
            return []
        if arm.startswith("shunt"):
            if not os.path.exists(self.program("shunt")):
                raise Unavailable("shunt is not built")
            affinity = ["--affinity", arm.partition("-")[2]] if "-" in arm else []
            options = affinity + shlex.split(self.arguments.shunt_options)
            return [self.program("shunt"), "run", "--net", self.arguments.net, *options, "--"]
        if shutil.which(arm) is None:
            raise Unavailable(f"{arm} is not installed")
        return [self.program("bench/container"), arm]

    def start(self, command):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)

    def finish(self, process, command, timeout):
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            raise Failed(f"no end after {timeout:.0f} s: {os.path.basename(command[0])}") from None
        if process.returncode == 77:
            raise Unavailable(errors.strip().splitlines()[-1] if errors.strip() else "not available here")
        if process.returncode != 0:
            why = (errors.strip() or output.strip() or "no message").splitlines()[-1]
            raise Failed(f"exit status {process.returncode}: {why[:200]}")
        return output

    def json(self, command, timeout=60):
        """Runs a command that prints a JSON object."""
        output = self.finish(self.start(command), command, timeout)
        try:
            return json.loads(output)
        except ValueError:
            raise Failed(f"no JSON from {os.path.basename(command[0])}: {output[:200]!r}") from None

    def echo_server(self, kind, cpu=None):
        """Starts a server, on `cpu` if that is given; returns its port.

        Each arm of each run gets one of its own (stop_servers() before): the connections of slirp4netns and pasta stay
        in TIME_WAIT, and to the same port of the server every later arm would have to search for a free one of its own.
        """
        pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
        command = pinned + [self.program("echo_server"), HOST, "0", kind]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        words = server.stdout.readline().split()
        if len(words) != 2 or words[0] != "ready":
            sys.exit("bench: echo_server did not start")
        return words[1]

    def stop_servers(self):
        for server in self.servers:
            server.kill()
            server.wait()
        self.servers.clear()

    def client(self, mode, port, *options):
        return [self.program("connect_client"), "--mode", mode, "--address", HOST, "--port", port, *options]


def sound(measured):
    """The client's result, or Failed when too many connections went wrong to call it a measurement."""
    errors = sum(measured["errors"].values())
    if errors > measured["samples"] / 100:
        raise Failed(f"{errors} of {errors + measured['samples']} connections failed: {measured['errors']}")
    return measured
