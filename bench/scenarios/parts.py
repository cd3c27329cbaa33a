# SPDX-License-Identifier: Apache-2.0
"""Where the time of an accelerated connect goes, part by part."""

import os

from scenarios.scenario import Scenario

# Of bench/swap.cc: each does what those before it do, and its own.
PARTS = ["continue", "twin", "address", "socket", "options", "holders"]


class Parts(Scenario):
    """Each arm is compared with the one before: the same bare supervisor, doing one thing more; at the end shunt itself, whose
    reactor, like the supervisor, has a CPU that is its own. In the arms "apart" caller and supervisor have one CPU between them,
    and the server another: what they take less is what wake-ups on another CPU take."""

    title = "what each part of an accelerated connect takes"
    arms = [f"{part}{where}" for where in ("", "-apart") for part in ("native", *PARTS, "shunt")]
    metrics = {"connect p50": ("us", "lower"), "connect p99": ("us", "lower")}

    def prepare(self):
        self.cpus = sorted(os.sched_getaffinity(0))

    def base(self, arm):
        index = self.arms.index(arm)
        return None if arm.startswith("native") else self.arms[index - 1]

    def floor(self, arm):
        return "native-apart" if arm.endswith("-apart") else "native"

    def measure(self, arm):
        self.stage.stop_servers()
        port = self.stage.echo_server("quiet", self.cpus[0])
        part = arm.removesuffix("-apart")
        count = 200 if self.tiny else 5000
        if part in PARTS:
            last = 0 if arm.endswith("-apart") else len(self.cpus) - 1
            prefix = [self.stage.program("swap"), "--parts", part, "--cpu", str(last), "--twins", str(count + 200), "--"]
        else:
            prefix = self.stage.arm_prefix(part)
        if arm.endswith("-apart"):
            prefix = self.stage.apart(self.cpus) + prefix
        measured = self.sound(self.stage.json(prefix + self.stage.client("connect", port, "--count", str(count))))
        return self.latencies(measured, ["p50", "p99"], "connect")
