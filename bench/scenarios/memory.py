# SPDX-License-Identifier: Apache-2.0
"""What an agent takes while its containers do nothing."""

import os
import subprocess
import tempfile
import time

from scenarios.scenario import Scenario
from scenarios.stage import Failed


class Memory(Scenario):
    title = "one agent that serves the listeners of 1000 containers and has nothing to do"
    arms = ["shunt"]
    metrics = {"RSS": ("MiB", "lower"), "RSS added": ("MiB", "lower"), "idle CPU": ("ms/s", "lower"),
               "descriptors left": ("", "lower")}

    def base(self, arm):
        return None

    def floor(self, arm):
        return None

    def measure(self, arm):
        self.stage.arm_prefix("shunt")
        containers = 10 if self.tiny else 1000
        socket = os.path.join(tempfile.mkdtemp(), "agent.sock")
        ready, ours = os.pipe()
        command = [self.stage.program("shunt"), "agent", "--socket", socket, "--ready-fd", str(ours)]
        # Its log goes to a file: it says a line for each container, and a pipe that nobody reads would fill up.
        log = tempfile.TemporaryFile("w+")
        agent = subprocess.Popen(command, pass_fds=[ours], stderr=log)
        os.close(ours)
        try:
            if not os.read(ready, 1):
                agent.wait(timeout=10)
                log.seek(0)
                raise Failed("the agent did not start: " + (log.read().strip().splitlines() or ["no message"])[-1])
            return self.watch(agent.pid, socket, containers)
        finally:
            os.close(ready)
            agent.terminate()
            try:
                agent.wait(timeout=5)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
            log.close()

    def watch(self, pid, socket, containers):
        before, descriptors = resident_mib(pid), len(os.listdir(f"/proc/{pid}/fd"))
        command = [self.stage.program("listeners"), socket, str(containers)]
        listeners = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if listeners.stdout.readline() != "ready\n":
                raise Failed("bench/listeners could not hand over its listeners")
            during = resident_mib(pid)
            begin, used = time.monotonic(), cpu_seconds(pid)
            time.sleep(max(1, self.seconds))
            idle = (cpu_seconds(pid) - used) / (time.monotonic() - begin)
        finally:
            listeners.communicate("", timeout=60)
        deadline = time.monotonic() + 5
        while len(os.listdir(f"/proc/{pid}/fd")) > descriptors and time.monotonic() < deadline:
            time.sleep(0.05)
        left = len(os.listdir(f"/proc/{pid}/fd")) - descriptors
        return {"RSS": during, "RSS added": during - before, "idle CPU": idle * 1000, "descriptors left": left}


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
