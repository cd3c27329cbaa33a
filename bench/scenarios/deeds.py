# SPDX-License-Identifier: Apache-2.0
"""Calls that a worker carries out for the container, or that are refused."""

from scenarios.scenario import Scenario


class Deeds(Scenario):
    """`bare` is the floor of a refused call: a loop that does nothing else. Threads of one container share its engine."""
    title = "mkdir on a tmpfs: refused, and made by a worker under another name"
    arms = ["native", "bare", "refused", "inside", "inside-4-threads"]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower"), "rate": ("calls/s", "higher")}

    def base(self, arm):
        return {"native": None, "bare": "native", "refused": "bare"}.get(arm, "native")

    def floor(self, arm):
        return "bare" if arm in ("bare", "refused") else "native"

    def measure(self, arm):
        return self.deed("mkdir", arm.split("-")[0], 20000, ["--threads", "4"] if arm.endswith("threads") else [])

    def deed(self, deed, arm, count, more=()):
        command = [self.stage.program("deeds"), "--deed", deed, "--arm", arm, "--count", "500" if self.tiny else str(count)]
        measured = self.stage.json(command + list(more), 120)
        return {**self.latencies(measured, ["p50", "p99"]), "rate": measured["per_second"]}


class Mounts(Deeds):
    """Each with a millisecond to the next. A proc with masks locked into a user namespace; natively none are."""
    title = "made for a container on a tmpfs: a device (in its place, or as a mount), a mount of proc with eight masks"
    arms = ["native-mknod", "inside-mknod", "inside-device", "native-proc", "inside-proc"]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower")}
    as_root = True  # who makes devices

    def base(self, arm):
        return {"inside-mknod": "native-mknod", "inside-device": "native-mknod", "inside-proc": "native-proc"}.get(arm)

    def floor(self, arm):
        return "native-proc" if arm.endswith("-proc") else "native-mknod"

    def measure(self, arm):
        manner, deed = arm.split("-")
        values = self.deed(deed, manner, 2000)
        return {name: values[name] for name in self.metrics}
