# SPDX-License-Identifier: Apache-2.0
"""Connections as programs make them that do not wait in connect(), use IPv6, or come when they come."""

from scenarios.scenario import Scenario
from scenarios.stage import HOST6

RATE, THREADS = 1000, 4  # connections a second, of all threads together


class Ways(Scenario):
    """Socket, connect and close, by one thread back to back; and in an open loop: a thousand a second are due at fixed times, and
    timed from then on, whether or not one of four threads was free. Late are those for which none was. Over IPv6 the rootless
    networks are not measured: these containers have none."""

    title = "socket, connect, close: not waiting in connect(), over IPv6, and at a fixed rate"
    metrics = {"nonblocking p50": ("us", "lower"), "nonblocking p99": ("us", "lower"), "IPv6 p50": ("us", "lower"),
               "IPv6 p99": ("us", "lower"), "open loop p50": ("us", "lower"), "open loop p99": ("us", "lower"),
               "open loop p99.9": ("us", "lower"), "late": ("%", "lower")}

    def measure(self, arm):
        self.stage.stop_servers()
        quiet = self.stage.echo_server("quiet")
        prefix = self.stage.arm_prefix(arm)
        count = ["--count", "200" if self.tiny else "10000"]

        def timed(port, *options):
            return self.sound(self.stage.json(prefix + self.stage.client("connect-close", port, *options)))

        values = self.latencies(timed(quiet, *count, "--nonblocking"), ["p50", "p99"], "nonblocking")
        if arm in ("native", "shunt"):
            port = self.stage.echo_server("quiet", address=HOST6)
            values |= self.latencies(timed(port, *count, "--address", HOST6), ["p50", "p99"], "IPv6")
        open_ = timed(quiet, "--rate", str(RATE), "--threads", str(THREADS), "--seconds", str(self.seconds))
        values |= self.latencies(open_, ["p50", "p99", "p99.9"], "open loop")
        due = open_["samples"] + open_["not_started"]
        return {**values, "late": 100 * (open_["late_starts"] + open_["not_started"]) / due}
