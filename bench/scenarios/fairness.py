# SPDX-License-Identifier: Apache-2.0
"""What one container costs another."""

from scenarios.scenario import Scenario
from scenarios.stage import HOST, Failed


class Fairness(Scenario):
    """`hogs`, `mappers` and `none` make no trapped call: the first two say what a busy machine costs without any engine's doing.

    -yielding: the flood's threads leave the CPUs to whoever wants them, so that the ratio is of the engine's work for
    them (which includes waits for such threads) and not of their own. -watched: an epoll watches the calm container's
    sockets, and one reactor serves both.
    """
    title = "a calm container's connect beside another container on the same engine, which floods it"
    arms = ["none", "connects", "waits", "epolls", "tables", "hogs", "starved", "mappers", "mappings",
            "hogs-yielding", "connects-yielding", "epolls-yielding", "tables-yielding",
            "none-watched", "hogs-watched", "connects-watched", "epolls-watched", "tables-watched"]
    links_engine = arms
    metrics = {"calm p50": ("us", "lower"), "calm p99": ("us", "lower"), "flood": ("calls/s", "higher")}

    def base(self, arm):
        flood, _, manner = arm.partition("-")
        if manner == "watched":
            return None if flood == "none" else "none-watched"
        return {"none": None, "starved": "hogs", "mappings": "mappers"}.get(flood, "none")

    def floor(self, arm):
        return "none-watched" if arm.endswith("-watched") else "none"

    def prepare(self):
        self.port = self.stage.echo_server("quiet")

    def measure(self, arm):
        flood, _, manner = arm.partition("-")
        command = [self.stage.program("fairness"), "--address", HOST, "--port", self.port, "--flood", flood,
                   "--count", "100" if self.tiny else "1000" if flood == "tables" else "3000"]
        command += {"yielding": ["--flood-nice", "19"], "watched": ["--calm-epoll", "--reactors", "1"]}.get(manner, [])
        measured = self.stage.json(command, 120)
        if measured["errors"]:
            raise Failed(f"{measured['errors']} of the calm container's connects failed")
        return {**self.latencies(measured, ["p50", "p99"], "calm"), "flood": measured["flood_per_second"] or None}
