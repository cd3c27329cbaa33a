# SPDX-License-Identifier: Apache-2.0
"""What containers cost an agent, one and ten thousand."""

import os
import resource
import subprocess
import time

from scenarios.agent import Agent
from scenarios.scenario import Scenario
from scenarios.stage import Unavailable

TRIED_FIRST = 50  # listeners, which show how many descriptors each takes
SPARE_DESCRIPTORS = 500  # of an engine, for what comes and goes


class Scale(Scenario):
    """One agent with that many listeners, each of a container of its own that does nothing; then one more container connects.
    Memory is that of all processes of the agent (PSS), CPU what they use together while nobody calls. `most`: up to 10,000, or
    as many as the limit of open files lets one engine have, which is what "listeners" says."""

    title = "an agent with idle containers, and the connects of one more"
    arms = ["native", "shunt 1", "shunt 10", "shunt 100", "shunt 1000", "shunt most"]
    most = 10000
    metrics = {"memory per listener": ("KiB", "lower"), "memory": ("MiB", "lower"), "idle CPU": ("ms/s", "lower"),
               "connect p50": ("us", "lower"), "connect p99": ("us", "lower"), "to take one in": ("ms", "lower"),
               "listeners": ("", "higher"), "descriptors left": ("", "lower")}

    def base(self, arm):
        return {"native": None, "shunt 1": "native"}.get(arm, "shunt 1")

    def measure(self, arm):
        self.stage.stop_servers()
        client = self.stage.client("connect", self.stage.echo_server("quiet"), "--count", "200" if self.tiny else "10000")
        if arm == "native":
            return self.latencies(self.sound(self.stage.json(client)), ["p50", "p99"], "connect")
        count = self.most if arm.endswith("most") else int(arm.split()[1])
        if self.tiny:
            count = min(count, 2 * TRIED_FIRST)
        with Agent(self.stage) as agent:
            return self.fill(agent, count, client)

    def fill(self, agent, count, client):
        empty, descriptors = agent.memory(), agent.descriptors("shunt-engine")
        listeners = []
        try:
            begin = time.monotonic()
            listeners.append(self.hand_over(agent, min(count, TRIED_FIRST)))
            if count > TRIED_FIRST:
                each = (agent.descriptors("shunt-engine") - descriptors) / TRIED_FIRST
                count = self.within_limits(count, each)
                listeners.append(self.hand_over(agent, count - TRIED_FIRST))
            took = time.monotonic() - begin
            full = agent.memory()
            values = {"memory per listener": (full - empty) / count / 1024, "memory": full / 2 ** 20,
                      "idle CPU": self.idle_cpu(agent) * 1000, "to take one in": took / count * 1000, "listeners": count}
            measured = self.sound(self.stage.json(agent.container() + client))
        finally:
            for process in listeners:
                process.communicate("", timeout=120)
        return {**values, **self.latencies(measured, ["p50", "p99"], "connect"),
                "descriptors left": self.left(agent, descriptors)}

    def within_limits(self, count, each):
        """How many there can be. Engines raise their limit of open files to the highest that they may have."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        possible = count if limit == resource.RLIM_INFINITY else int((limit - SPARE_DESCRIPTORS) / max(each, 1))
        if count < self.most and possible < count:
            raise Unavailable(f"{count} listeners take about {count * each:.0f} descriptors of an engine, and a process may "
                              f"have {limit} here (ulimit -Hn)")
        return min(count, possible)

    def hand_over(self, agent, count):
        """Returns when all are served; they stay until their standard input ends."""
        process = subprocess.Popen([self.stage.program("listeners"), agent.socket, str(count)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if process.stdout.readline() != "ready\n":
            _, errors = process.communicate("")
            raise agent.failed((errors.strip().splitlines() or ["listeners: no message"])[-1])
        return process

    def idle_cpu(self, agent):
        time.sleep(0.1 if self.tiny else 0.5)  # the last one has just been taken in
        begin, used = time.monotonic(), agent.cpu_seconds()
        time.sleep(max(1, self.seconds))
        return (agent.cpu_seconds() - used) / (time.monotonic() - begin)

    @staticmethod
    def left(agent, before):
        deadline = time.monotonic() + 10
        while (now := agent.descriptors("shunt-engine")) > before and time.monotonic() < deadline:
            time.sleep(0.05)
        return now - before
