# SPDX-License-Identifier: Apache-2.0
"""`shunt agent`, as scenarios with more than one container use it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time

from scenarios.processes import processes_below
from scenarios.stage import Failed

PATIENCE = 60  # seconds
# Beside these a container's filter traps what only some programs call (handlers/traps.h), and of setsockopt some options: ours do
# neither. (bench/notified would trap setsockopt whole, which costs a connection of theirs another notification.)
TRAPPED = "connect,bind,listen"
EXACT = "shunt.traps=1"  # as `shunt profile` says of its filters: without it an agent reads all that could have been set


def in_container(stage, socket, calls=TRAPPED, metadata=EXACT):
    """The prefix of a command that is to run in a container without any network of its own, under the agent at this socket."""
    more = ["--metadata", metadata] if metadata else []
    return ["unshare", "--user", "--map-root-user", "--net", stage.program("notified"), "--socket", socket, "--trap", calls,
            *more, "--"]


class Agent:
    """One agent, in a `with`: it is ready inside, and nothing is left of it afterwards. Its log goes to a file, since it says a
    line for each container, and a pipe that nobody reads would fill up."""

    def __init__(self, stage, *options):
        stage.arm_prefix("shunt")  # whether there is such a program
        self.stage = stage
        self.shunt = stage.program("shunt")
        self.options = options
        self.process = None

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="agent-")
        self.socket = os.path.join(self.folder, "sock")
        self.log = open(os.path.join(self.folder, "log"), "w+", encoding="utf-8", errors="replace")
        ready, ours = os.pipe()
        begin = time.monotonic()
        try:
            self.process = subprocess.Popen([self.shunt, "agent", "--socket", self.socket, "--ready-fd", str(ours), *self.options],
                                            pass_fds=[ours], stdin=subprocess.DEVNULL, stderr=self.log)
            os.close(ours)
            if not os.read(ready, 1):
                self.process.wait(PATIENCE)
                raise self.failed("the agent did not start")
            self.start_took = time.monotonic() - begin
            return self
        except BaseException:
            self.__exit__()
            raise
        finally:
            os.close(ready)

    def __exit__(self, *_):
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()  # the rest ends with it
                self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def failed(self, why):
        """With what its log says last."""
        self.log.seek(0)
        return Failed(why, self.log.read().splitlines())

    def container(self):
        return in_container(self.stage, self.socket)

    def ctl(self, *command):
        """What `shunt ctl` prints. Raises Failed."""
        full = [self.shunt, "ctl", "--socket", self.socket, *command]
        return self.stage.finish(self.stage.start(full), full, PATIENCE)

    def processes(self):
        """{pid: its name} of all that the agent consists of at this moment."""
        return processes_below(self.process.pid)

    def engine(self, but=None):
        """The pid of an engine that is not `but`. Raises Failed when there is none for long."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            engines = [pid for pid, name in self.processes().items() if name == "shunt-engine" and pid != but]
            if engines:
                return engines[-1]
            if self.process.poll() is not None:
                break
            time.sleep(0.002)
        raise self.failed("there is no engine")

    def kill_engine(self):
        """Returns when there is another one, which has yet to prepare."""
        engine = self.engine()
        os.kill(engine, signal.SIGKILL)
        self.engine(but=engine)

    def memory(self):
        """Bytes that it has of its own, with its share of what several have (PSS). What may not be looked at, its little companion
        for control groups, counts by its resident set."""
        return sum(map(proportional_bytes, self.processes()))

    def cpu_seconds(self):
        return sum(map(cpu_seconds, self.processes()))

    def descriptors(self, name):
        """Of its processes of this name."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid, found in self.processes().items() if found == name)


def line_kib(path, name):
    with open(path, encoding="ascii", errors="replace") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))


def proportional_bytes(pid):
    try:
        return line_kib(f"/proc/{pid}/smaps_rollup", "Pss:") * 1024
    except PermissionError:
        return line_kib(f"/proc/{pid}/status", "VmRSS:") * 1024
    except (OSError, StopIteration):
        return 0  # it has ended


def cpu_seconds(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
