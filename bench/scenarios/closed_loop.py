# SPDX-License-Identifier: Apache-2.0
"""Connections as fast as threads and containers get them."""

import json
import time

from scenarios.scenario import Scenario
from scenarios.stage import Failed, Unavailable


class ClosedLoop(Scenario):
    title = "connect, one byte there and back, close: closed loop"
    metrics = {"8 threads": ("/s", "higher"), "8 threads p99": ("us", "lower"), "4 containers": ("/s", "higher")}

    def measure(self, arm):
        self.stage.stop_servers()
        port = self.stage.echo_server("2")
        prefix = self.stage.arm_prefix(arm)
        client = self.stage.client("echo", port, "--seconds", str(self.seconds))
        threads = self.sound(self.stage.json(prefix + client + ["--threads", "8"]))
        return {**self.rate(threads, "8 threads"), **self.latencies(threads, ["p99"], "8 threads"),
                "4 containers": self.containers(prefix, client)}

    def containers(self, prefix, client):
        """Four containers with two threads each, begun at the same moment."""
        command = prefix + client + ["--threads", "2", "--start-at", str(time.time() + (1 if self.tiny else 3))]
        started = [self.stage.start(command) for _ in range(4)]
        outputs, failure = [], None
        for process in started:
            try:
                outputs.append(self.stage.finish(process, command, 60))
            except (Failed, Unavailable) as error:
                failure = error
        if failure:
            raise failure
        results = [self.sound(json.loads(output)) for output in outputs]
        if not self.tiny and max(result["late"] for result in results) > 0.2:
            raise Failed("the containers took too long to start to begin together")
        return sum(result["per_second"] for result in results)
