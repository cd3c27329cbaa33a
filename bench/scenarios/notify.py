# SPDX-License-Identifier: Apache-2.0
"""The round trip of one notification, by affinity, number of listeners and number of callers."""

import json
import os

from scenarios.agent import Agent
from scenarios.scenario import Scenario
from scenarios.stage import on_cpus

# Name -> (listeners, callers, affinity). Each caller is a container of its own.
MANNERS = {"1 listener": (1, 1, "pin"), "float": (1, 1, "float"), "first CPU": (1, 1, "first"), "last CPU": (1, 1, "last"),
           "10 listeners": (10, 1, "pin"), "100 listeners": (100, 1, "pin"), "1000 listeners": (1000, 1, "pin"),
           "2 callers": (2, 2, "pin"), "4 callers": (4, 4, "pin"), "8 callers": (8, 8, "pin")}


class Notify(Scenario):
    """A call that is answered at once (connect() on no descriptor). `bare`: a loop of RECV and SEND that does nothing else, which
    waits in RECV for one listener and in epoll_wait(2) for more; it is the floor. `shunt`: an agent. All listeners are there,
    and the callers call without a pause; the others say nothing. Reactors and the loop have a CPU of their own (pinned) but in
    the arms "float". The loop is one thread, the agent has a reactor for each CPU. In the arms "first CPU" and "last CPU" the caller
    may run on that one only, as in a container with a cpuset; so does the loop."""

    title = "a trapped call that is answered at once, beside idle listeners and among several callers"
    arms = [f"{who} {manner}" for manner in MANNERS for who in ("bare", "shunt")]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower"), "p99.9": ("us", "lower"), "p99.99": ("us", "lower")}

    def base(self, arm):
        who, _, manner = arm.partition(" ")
        return f"bare {manner}" if who == "shunt" else None if manner == "1 listener" else "bare 1 listener"

    def floor(self, arm):
        return "bare " + arm.partition(" ")[2]

    def measure(self, arm):
        who, _, manner = arm.partition(" ")
        listeners, callers, affinity = MANNERS[manner]
        if self.tiny:
            listeners = min(listeners, 20)
        calls = ["--callers", str(callers), "--count", "1000" if self.tiny else "100000"]
        cpus = sorted(os.sched_getaffinity(0))
        kept = {"first": on_cpus(cpus[:1]), "last": on_cpus(cpus[-1:])}.get(affinity, [])
        if who == "bare":
            command = [*kept, self.stage.program("floor"), "--call", "connect", "--sync", "--listeners", str(listeners), *calls,
                       "--affinity", {"pin": "pin-supervisor", "float": "free"}.get(affinity, "same")]
            measured = self.stage.json(command, 300)
        else:
            with Agent(self.stage, "--affinity", "float" if affinity == "float" else "pin") as agent:
                command = [*kept, self.stage.program("listeners"), agent.socket, str(listeners), *calls]
                output = self.stage.finish(self.stage.start(command), command, 300)
            measured = json.loads(output.splitlines()[-1])
        return self.latencies(measured, ["p50", "p99", "p99.9", "p99.99"])
