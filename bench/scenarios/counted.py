# SPDX-License-Identifier: Apache-2.0
"""What one connect takes, counted and not timed; and the CPU time of both sides."""

from scenarios.scenario import Scenario
from scenarios.stage import HOST


class Counted(Scenario):
    """Of the engine: its reactors, on whom the caller waits, and its other threads. They make sockets in advance, and share in
    what a connect takes. System calls are counted under ptrace, in a round of its own; instructions take a CPU's counters, which
    most virtual machines lack. CPU of the machine and of the control group is everybody's who runs meanwhile, in ticks."""

    title = "one connect and close, counted on both sides"
    arms = ["native", "shunt"]
    metrics = {"calls of reactors": ("", "lower"), "calls of other threads": ("", "lower"),
               "heap calls of reactors": ("", "lower"), "heap calls of other threads": ("", "lower"),
               "switches of reactors": ("", "lower"), "switches of the caller": ("", "lower"),
               "instructions of reactors": ("", "lower"), "CPU of reactors": ("us", "lower"),
               "CPU of other threads": ("us", "lower"), "CPU of the caller": ("us", "lower"),
               "CPU of the machine": ("us", "lower"), "CPU of the control group": ("us", "lower")}

    def measure(self, arm):
        self.stage.stop_servers()
        port = self.stage.echo_server("quiet")
        command = [self.stage.program("counted"), "--address", HOST, "--port", port,
                   "--connects", "200" if self.tiny else "5000"]
        if arm == "shunt":
            command += ["--heap", self.stage.program("libheap_counts.so"), "--", *self.stage.arm_prefix("shunt", connects=False)[:-1]]
        found = self.stage.json(command, 120)
        values = {}
        for name, key in (("calls", "system_calls"), ("heap calls", "heap_calls"), ("instructions", "instructions")):
            for side, its_key in (("reactors", "reactors"), ("other threads", "other_threads")):
                values[f"{name} of {side}"] = found[key][its_key] if found.get(key) else None
            if arm == "shunt" and found.get(key) is None:
                self.without |= dict.fromkeys((f"{name} of reactors", f"{name} of other threads"), found.get(f"{key}_why", "no reason"))
        for side, key in (("reactors", "reactors"), ("the caller", "client")):
            switches = found["switches"].get(key)
            values[f"switches of {side}"] = sum(switches.values()) if switches else None
        for side, key in (("reactors", "reactors"), ("other threads", "other_threads"), ("the caller", "client"),
                          ("the machine", "machine"), ("the control group", "control_group")):
            nanoseconds = found["cpu_ns"].get(key)
            values[f"CPU of {side}"] = None if nanoseconds is None else nanoseconds / 1000
        return values
