# SPDX-License-Identifier: Apache-2.0
"""How iperf3 is used by more than one scenario."""

import shutil
import time

from scenarios.stage import HOST, Failed, Unavailable


class Iperf:
    """iperf3, unmodified; its server is on the host."""

    def __init__(self, stage):
        self.stage = stage
        self.port = 5201
        if shutil.which("iperf3") is None:
            raise Unavailable("iperf3 is not installed: apt-get install iperf3")

    def listening(self):
        wanted = f":{self.port:04X}"
        for path in ["/proc/net/tcp", "/proc/net/tcp6"]:
            with open(path, encoding="ascii") as file:
                for line in list(file)[1:]:
                    fields = line.split()
                    if fields[1].endswith(wanted) and fields[3] == "0A":
                        return True
        return False

    def gigabits(self, prefix, seconds, streams, down):
        """Received Gbit/s of one test. Each test has a server of its own: a broken client can wedge one."""
        self.port += 1
        server = self.stage.start(["iperf3", "--server", "--one-off", "--bind", HOST, "--port", str(self.port)])
        try:
            deadline = time.monotonic() + 10
            while not self.listening():
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
