# SPDX-License-Identifier: Apache-2.0
"""What scenarios work with: where the programs are, commands in an arm, servers of theirs."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time

SECONDS_TO_LOOK = 2  # between looks whether a command has ended: seldom, because others are measured meanwhile
# A command may take so many times --seconds beyond what every one may: the longest timed ones last three, and redis-benchmark
# gets a number of requests that takes the slowest network much longer than no network.
TIMES_THE_SECONDS = 20
HOST, HOST6 = "203.0.113.1", "fd00:113::1"
LAST_LINES = 10
# What begins the last words of a program in Go; behind them it lists all that it was doing.
LAST_WORDS = ("panic:", "fatal error:")


class Unavailable(Exception):
    """An arm cannot be tried on this machine: a program or a right is absent."""


class Failed(Exception):
    """An arm was tried and did not give a value; `last_lines` are what its program said last."""

    def __init__(self, why, last_lines=()):
        super().__init__(why)
        lines = list(last_lines)
        begin = next((i for i, line in enumerate(lines) if line.startswith(LAST_WORDS)), max(0, len(lines) - LAST_LINES))
        self.last_lines = lines[begin:begin + LAST_LINES]


def usual_network(path):
    """What is below shunt, with this PATH, if nobody has said it: what containers have, or nothing for whom slirp4netns cannot
    serve."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError:
        return "none"
    return "slirp4netns" if shutil.which("slirp4netns", path=path) else "none"


def on_cpus(cpus):
    """Before a command that may run on these only."""
    return ["taskset", "--cpu-list", ",".join(map(str, cpus))]


class Stage:
    """Commands, servers and where the programs are."""

    def __init__(self, directory, arguments):
        self.directory = directory
        self.arguments = arguments
        self.servers = []
        self.started = []
        self.net = arguments.net or usual_network(arguments.path_of_shunt)

    def program(self, name):
        """The path of a program of ours. Raises Unavailable when it is not there."""
        path = os.path.join(self.directory, name)
        if not os.path.exists(path):
            raise Unavailable(f"{name} is not built")
        return path

    def arm_prefix(self, arm, connects=True):
        """How the command of an arm begins. `connects`: it needs a network, which a container without one gets from shunt."""
        if arm == "native":
            return []
        if arm.startswith("shunt"):
            manner = arm.partition("-")[2]
            net = self.net if connects else "none"
            if manner == "unaccelerated" and net == "none":
                raise Unavailable("below shunt there is no network: it takes slirp4netns, pasta or a /dev/net/tun (--net NAME)")
            options = ["--no-accelerate"] if manner == "unaccelerated" else ["--affinity", manner] if manner else []
            options += shlex.split(self.arguments.shunt_options)
            return [*self.path_for(net), self.program("shunt"), "run", "--net", net, *options, "--"]
        if shutil.which(arm) is None:
            raise Unavailable(f"{arm} is not on PATH (--peer {arm}=PATH)")
        if arm == "bypass4netns":
            self.program("notified")
        return [self.program("bench/container"), arm]

    def path_for(self, net):
        """Before shunt: has it find its own network where one is measured as a peer that the user says to be elsewhere."""
        path = self.arguments.path_of_shunt
        return [] if net == "none" or shutil.which(net) == shutil.which(net, path=path) else ["env", f"PATH={path}"]

    def start(self, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, start_new_session=True)
        self.started.append(process)
        return process

    def finish(self, process, command, timeout):
        """The output of a command that was started before. `timeout`: seconds that it may take beside those it is asked to."""
        timeout += TIMES_THE_SECONDS * self.arguments.seconds
        try:
            output, errors = self.said(process, timeout)
            if process.returncode is None:
                output, errors = self.end(process)
                raise Failed(f"no end after {timeout:g} s: {os.path.basename(command[0])}", (output + errors).splitlines())
        finally:
            self.started.remove(process)
        if process.returncode == 77:
            raise Unavailable(errors.strip().splitlines()[-1] if errors.strip() else "not available here")
        if process.returncode != 0:
            lines = (errors.strip() or output.strip() or "no message").splitlines()
            raise Failed(f"exit status {process.returncode}: {lines[-1][:200]}", lines)
        return output

    def said(self, process, timeout):
        """(output, errors) of a command that has ended; its return code is None if it has not, after `timeout` seconds.

        Whom it has left behind, with its output open, is ended: pasta's child waits for ever for one that could not start.
        """
        ends = time.monotonic() + timeout
        while time.monotonic() < ends:
            try:
                return process.communicate(timeout=min(SECONDS_TO_LOOK, timeout))
            except subprocess.TimeoutExpired:
                if process.poll() is not None:
                    return self.end(process)
        return "", ""

    @staticmethod
    def end(process):
        """Ends a command with all that it has started; (output, errors)."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:  # they have ended meanwhile
                pass
            try:
                return process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                pass
        return "", ""  # open to somebody with a session of his own, whom the end of the stage ends

    def json(self, command, timeout=60):
        """Runs a command that prints a JSON object."""
        return self.result(self.start(command), command, timeout)

    def result(self, process, command, timeout):
        """The JSON object that a command prints, which was started before."""
        output = self.finish(process, command, timeout)
        try:
            return json.loads(output)
        except ValueError:
            raise Failed(f"no JSON from {os.path.basename(command[0])}: {output[:200]!r}") from None

    def echo_server(self, kind, cpu=None, address=HOST):
        """Starts a server, on `cpu` if that is given; returns its port.

        Each arm of each run gets one of its own (stop_servers() before): the connections of slirp4netns and pasta stay
        in TIME_WAIT, and to the same port of the server every later arm would have to search for a free one of its own.
        """
        pinned = [] if cpu is None else on_cpus([cpu])
        command = pinned + [self.program("echo_server"), address, "0", kind]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        words = server.stdout.readline().split()
        if len(words) != 2 or words[0] != "ready":
            raise Failed("echo_server did not start")
        return words[1]

    def stop(self, server):
        server.kill()
        server.wait()
        self.servers.remove(server)

    def stop_servers(self):
        while self.servers:
            self.stop(self.servers[-1])

    def stop_everything(self):
        self.stop_servers()
        for process in self.started:
            if process.poll() is None:
                self.end(process)

    @staticmethod
    def apart(cpus):
        """Before a command: it has all CPUs but the first, which is its server's alone."""
        if len(cpus) < 2:
            raise Unavailable("this needs two CPUs")
        return on_cpus(cpus[1:])

    def client(self, mode, port, *options):
        return [self.program("connect_client"), "--mode", mode, "--address", HOST, "--port", port, *options]
