# SPDX-License-Identifier: Apache-2.0
"""What a container sees of its engine's death."""

import time

from scenarios.agent import Agent
from scenarios.scenario import Scenario
from scenarios.stage import Failed

HEAD_START = 1.0  # seconds: until then the container is there
PAUSE = 0.25  # seconds, in which an engine that was started may work


class Crash(Scenario):
    """Two threads connect, send a byte, get it back and close, without a pause, while the engine is killed (SIGKILL) or replaced
    (`shunt ctl upgrade`) nearly four times a second. The longest stall is the longest single round of these. One that fails is
    one too many. (Without the byte a server that gets no CPU for long would show: its queue of
    connections would fill up, and the kernel sends a SYN again after a second.)"""

    title = "connect, one byte there and back, close: while the container's engine is killed or upgraded again and again"
    arms = ["native", "shunt", "shunt killed", "shunt upgraded"]
    metrics = {"longest stall": ("ms", "lower"), "p99.9": ("us", "lower"), "p50": ("us", "lower"), "rounds": ("/s", "higher"),
               "ends of engines": ("", "higher"), "failed calls": ("", "lower")}

    def base(self, arm):
        return {"native": None, "shunt": "native"}.get(arm, "shunt")

    def measure(self, arm):
        self.stage.stop_servers()
        port = self.stage.echo_server("1")
        seconds = max(1, 3 * self.seconds)
        begin = time.time() + HEAD_START
        client = self.stage.client("echo", port, "--threads", "2", "--seconds", str(seconds), "--start-at", str(begin))
        if arm == "native":
            return self.told(self.stage.json(client), 0)
        with Agent(self.stage) as agent:
            command = agent.container() + client
            process = self.stage.start(command)
            ends = self.disturb(agent, arm, begin, seconds)
            return self.told(self.stage.result(process, command, 60), ends)

    def disturb(self, agent, arm, begin, seconds):
        """How often an engine has ended. The last one early enough for its successor to be seen at work."""
        end = {"shunt killed": agent.kill_engine, "shunt upgraded": lambda: agent.ctl("upgrade")}.get(arm)
        ends = 0
        time.sleep(max(0, begin - time.time()))
        while end and time.time() < begin + seconds - 2 * PAUSE:
            end()
            ends += 1
            time.sleep(PAUSE)
        if end and ends == 0:
            raise Failed("the time was over before an engine had ended once")
        return ends

    def told(self, measured, ends):
        failed = sum(measured["errors"].values())
        return {"longest stall": measured["max_ns"] / 1e6, **self.latencies(measured, ["p99.9", "p50"]),
                "rounds": measured["per_second"], "ends of engines": ends, "failed calls": failed}
