# SPDX-License-Identifier: Apache-2.0
"""What a filter costs the calls that it lets through."""

from scenarios.scenario import Scenario


class Untrapped(Scenario):
    """bypass4netns traps four of these (close, fcntl, setsockopt and getpeername of whatever descriptor)."""

    title = "calls that are nobody's business"
    arms = ["native", "any-filter", "shunt", "bypass4netns"]
    calls = ["close", "fcntl", "setsockopt", "getpeername", "read", "write", "getpid"]
    metrics = {call: ("ns", "lower") for call in calls}

    def base(self, arm):
        # Any seccomp filter at all makes every call dearer, whatever it says.
        return {"native": None, "any-filter": "native"}.get(arm, "any-filter")

    def measure(self, arm):
        batches = "20" if self.tiny else "100" if arm == "bypass4netns" else "1000"  # of 256 calls
        command = [self.stage.program("untrapped"), "--batches", batches]
        if arm == "any-filter":
            measured = self.stage.json(command + ["--allow-all-filter"])
        else:
            measured = self.stage.json(self.stage.arm_prefix(arm, connects=False) + command)
        for call in self.calls:
            if measured[call].get("overhead_ns") is not None:
                self.overheads[call] = measured[call]["overhead_ns"]
        return {call: measured[call]["p50_ns"] for call in self.calls}
