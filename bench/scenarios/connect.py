# SPDX-License-Identifier: Apache-2.0
"""What the connections of one thread take."""

import os

from scenarios.scenario import Scenario


class Connect(Scenario):
    """`shunt-unaccelerated` is shunt's container on its ordinary network (shunt run --no-accelerate): what acceleration changes.
    The server has the first CPU to itself in the arms "apart". A server that gets to run on the caller's CPU accepts a
    dozen connections at a time there, and the connect that waits for it is what p99 shows: a matter of who runs where."""

    title = "a connection to a host address, one after the other, one thread"
    arms = [*Scenario.arms, "shunt-unaccelerated", "native-apart", "shunt-apart"]
    metrics = {"connect p50": ("us", "lower"), "connect p99": ("us", "lower"), "connect p99.9": ("us", "lower"),
               "connect p99.99": ("us", "lower"),
               "connect+close p50": ("us", "lower"), "connect+echo+close p50": ("us", "lower"),
               "connect+echo+close p99": ("us", "lower")}

    def prepare(self):
        self.cpus = sorted(os.sched_getaffinity(0))

    def base(self, arm):
        return {"native": None, "shunt-apart": "native-apart", "native-apart": None}.get(arm, "native")

    def floor(self, arm):
        return "native-apart" if arm.endswith("-apart") else "native"

    def measure(self, arm):
        self.stage.stop_servers()
        self.quiet = self.stage.echo_server("quiet", self.cpus[0])
        self.echo = self.stage.echo_server("1", self.cpus[0])
        count = "200" if self.tiny else "15000"  # with seven runs enough for a p99.9
        prefix = self.stage.arm_prefix(arm.removesuffix("-apart"))
        if arm.endswith("-apart"):
            prefix = self.stage.apart(self.cpus) + prefix
        results = {}
        for mode, port in [("connect", self.quiet), ("connect-close", self.quiet), ("echo", self.echo)]:
            results[mode] = self.sound(self.stage.json(prefix + self.stage.client(mode, port, "--count", count)))
        return {**self.latencies(results["connect"], ["p50", "p99", "p99.9", "p99.99"], "connect"),
                **self.latencies(results["connect-close"], ["p50"], "connect+close"),
                **self.latencies(results["echo"], ["p50", "p99"], "connect+echo+close")}
