# SPDX-License-Identifier: Apache-2.0
"""Bytes through connections that stay."""

from scenarios.iperf import Iperf
from scenarios.scenario import Scenario
from scenarios.sides import BOTH


class Throughput(Scenario):
    """Up is from iperf3's client to its server. In the arms "-published" the server is the one in the container."""

    title = "iperf3 to and from a host address, and to and from a port that a container publishes there"
    arms = BOTH
    metrics = {"1 stream up": ("Gbit/s", "higher"), "1 stream down": ("Gbit/s", "higher"),
               "4 streams up": ("Gbit/s", "higher"), "4 streams down": ("Gbit/s", "higher")}

    def prepare(self):
        self.iperf = Iperf(self.stage)

    def measure(self, arm):
        self.stage.stop_servers()
        seconds = max(1, round(self.seconds))
        return {f"{streams} stream{'s' if streams > 1 else ''} {'down' if down else 'up'}":
                self.iperf.gigabits(arm, seconds, streams, down) for streams in (1, 4) for down in (False, True)}
