# SPDX-License-Identifier: Apache-2.0
"""A trapped call beside the bare loop of RECV and SEND."""

from scenarios.scenario import Scenario


class Floor(Scenario):
    """In the arm "bare-sessions-pin" the loop and its caller are in two sessions, each a group of its own to the scheduler, as an
    agent and the containers of a runtime are. `shunt run` and its command are in one."""

    title = "a trapped call that is answered at once (connect() on no descriptor)"
    arms = ["native", "bare-float", "bare-pin", "bare-poll-pin", "bare-sessions-pin", "shunt-float", "shunt-pin"]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower")}

    def base(self, arm):
        return {"shunt-float": "bare-float", "shunt-pin": "bare-pin", "bare-poll-pin": "bare-pin",
                "bare-sessions-pin": "bare-pin"}.get(arm)

    def floor(self, arm):
        return {"native": None, "bare-float": "bare-float", "shunt-float": "bare-float"}.get(arm, "bare-pin")

    def measure(self, arm):
        command = [self.stage.program("floor"), "--call", "connect", "--count", "1000" if self.tiny else "20000"]
        if arm.startswith("bare"):
            affinity = "pin-supervisor" if arm.endswith("-pin") else "free"
            more = {"bare-poll-pin": ["--poll"], "bare-sessions-pin": ["--own-session"]}.get(arm, [])
            measured = self.stage.json(command + ["--sync", "--affinity", affinity] + more)
        else:
            measured = self.stage.json(self.stage.arm_prefix(arm, connects=False) + command + ["--target-only"])
        return self.latencies(measured, ["p50", "p99"])
