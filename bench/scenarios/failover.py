# SPDX-License-Identifier: Apache-2.0
"""What clients see of a server's death, by who balances."""

import time

from scenarios.balance import HEAD_START, Balance

RATE, THREADS = 500, 8  # connections a second, of all threads together
SERVERS = 3


class Failover(Balance):
    """One of three servers is killed after a third of the time, and does not come back. Connections are due at fixed times and
    timed from then on (an open loop): who is held up holds up those behind him, and the longest is the gap that users see. Failed
    are those that end without their byte; one that was under way when the server died fails whoever balances. `native` has a
    server that stays. The proxies are told to try the next server at once (HAProxy: redispatch, and a check each 500 ms)."""

    title = "connect, one byte there and back, close, at a fixed rate: one of three servers is killed"
    arms = ["native", "services", "haproxy", "nginx", "shunt+haproxy", "shunt+nginx"]
    as_root = False
    metrics = {"longest": ("ms", "lower"), "failed": ("%", "lower"), "p50": ("us", "lower"), "p99": ("us", "lower")}
    haproxy_backend = "  option redispatch 1\n  default-server check inter 500"

    def measure(self, arm):
        self.stage.stop_servers()
        ports = [self.stage.echo_server("1") for _ in range(SERVERS)]
        victim = self.stage.servers[SERVERS - 1]
        prefix, address, port = self.way(arm, ports)
        seconds = max(1, 3 * self.seconds)
        begin = time.time() + HEAD_START
        command = prefix + self.client(address, port, "--rate", str(RATE), "--threads", str(THREADS), "--seconds", str(seconds),
                                       "--start-at", str(begin))
        process = self.stage.start(command)
        time.sleep(max(0, begin + seconds / 3 - time.time()))
        victim.kill()
        measured = self.stage.result(process, command, 60)
        self.stage.stop_servers()
        failed = sum(measured["errors"].values()) + measured["not_started"]
        return {"longest": measured["max_ns"] / 1e6, "failed": 100 * failed / (failed + measured["samples"]),
                **self.latencies(measured, ["p50", "p99"])}
