# SPDX-License-Identifier: Apache-2.0
"""How iperf3 is used by more than one scenario."""

import tempfile

from scenarios.servers import installed, serve
from scenarios.sides import sides
from scenarios.stage import HOST, Failed


class Iperf:
    """iperf3, unmodified. Its server is on the host, its client in a container, or the other way round."""

    def __init__(self, stage):
        self.stage = stage
        self.port = 5201
        self.folder = tempfile.mkdtemp(prefix="iperf-")
        installed("iperf3")

    def gigabits(self, arm, seconds, streams, down):
        """Received Gbit/s of one test. Each test has a server of its own: a broken client can wedge one."""
        self.port += 1
        port = str(self.port)
        where = sides(self.stage, arm, port)
        server = serve(self.stage, ["iperf3", "--server", "--one-off", "--bind", where.address, "--port", port], port,
                       self.folder, where=where)
        try:
            command = [*where.client, "iperf3", "--client", HOST, "--port", port, "--time", f"{seconds:g}", "--json",
                       "--parallel", str(streams), "--omit", "0"] + (["--reverse"] if down else [])
            result = self.stage.json(command, 20)
            return result["end"]["sum_received"]["bits_per_second"] / 1e9
        except KeyError:
            raise Failed("iperf3 gave no result: " + str(result.get("error", ""))) from None
        finally:
            self.stage.stop(server)
