# SPDX-License-Identifier: Apache-2.0
"""The main figures, quickly: tools/quickstart."""

from scenarios.iperf import Iperf
from scenarios.scenario import Scenario


class Quick(Scenario):
    title = "the same programs in a rootless container"
    arms = ["native", "shunt", "slirp4netns", "pasta"]
    metrics = {"iperf3 up": ("Gbit/s", "higher"), "iperf3 down": ("Gbit/s", "higher"), "connect p50": ("us", "lower"),
               "connect+echo": ("/s", "higher")}

    def prepare(self):
        self.iperf = Iperf(self.stage)

    def measure(self, arm):
        self.stage.stop_servers()
        quiet, echo = self.stage.echo_server("quiet"), self.stage.echo_server("2")
        prefix = self.stage.arm_prefix(arm)
        seconds = max(1, round(self.seconds))
        latency = self.sound(self.stage.json(prefix + self.stage.client("connect", quiet, "--count", "2000")))
        loop = self.stage.client("echo", echo, "--threads", "8", "--seconds", str(self.seconds / 2))
        return {"iperf3 up": self.iperf.gigabits(arm, seconds, 1, False),
                "iperf3 down": self.iperf.gigabits(arm, seconds, 1, True),
                **self.latencies(latency, ["p50"], "connect"),
                **self.rate(self.sound(self.stage.json(prefix + loop)), "connect+echo")}
