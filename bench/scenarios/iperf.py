# SPDX-License-Identifier: Apache-2.0
"""How iperf3 is used by more than one scenario."""

import time

from scenarios.servers import installed, listens
from scenarios.stage import HOST, Failed


class Iperf:
    """iperf3, unmodified; its server is on the host."""

    def __init__(self, stage):
        self.stage = stage
        self.port = 5201
        installed("iperf3")

    def gigabits(self, prefix, seconds, streams, down):
        """Received Gbit/s of one test. Each test has a server of its own: a broken client can wedge one."""
        self.port += 1
        server = self.stage.start(["iperf3", "--server", "--one-off", "--bind", HOST, "--port", str(self.port)])
        try:
            deadline = time.monotonic() + 10
            while not listens(self.port):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise Failed("the iperf3 server did not start")
                time.sleep(0.01)
            command = prefix + ["iperf3", "--client", HOST, "--port", str(self.port), "--time", f"{seconds:g}", "--json",
                                "--parallel", str(streams), "--omit", "0"] + (["--reverse"] if down else [])
            result = self.stage.json(command, seconds + 20)
            return result["end"]["sum_received"]["bits_per_second"] / 1e9
        except KeyError:
            raise Failed("iperf3 gave no result: " + str(result.get("error", ""))) from None
        finally:
            server.kill()
            server.communicate()
