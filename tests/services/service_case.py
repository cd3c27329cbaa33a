# SPDX-License-Identifier: Apache-2.0
"""ServiceCase: an agent with services, and containers of a real runtime that connect to them.

What the tests of services share. It also leads to what they have in common with others, in tests/runtimes and tests/support.
"""

import json
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "..", "runtimes"), os.path.join(HERE, "..", "support"), os.path.join(HERE, "..", "..", "bench")]
from runtime_case import ARGS, RuntimeCase  # noqa: E402  (found by the line above)
from stage import nginx  # noqa: E402

SERVICE = "10.96.0.10:80"
GET = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc 10.96.0.10 80 | tail -n 1"


def with_network(config):
    """The rootless configuration of runc leaves the container in the host's network."""
    spaces = config["linux"]["namespaces"]
    if not any(space["type"] == "network" for space in spaces):
        spaces.append({"type": "network"})


class ServiceCase(RuntimeCase):
    """Of an agent's services the one that is looked at is called web. Containers have no ordinary network."""

    def setUp(self):
        super().setUp()
        for applet in ("ip", "mkfifo", "printf", "seq", "tail"):
            os.symlink("busybox", os.path.join(self.rootfs, "bin", applet))
        self.config = os.path.join(self.folder, "agent.yaml")
        self.made = 0

    def write(self, text):
        """The agent's configuration."""
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(text)

    def start_servers(self, *ports):
        """nginx on the arena's host, which answer with their port."""
        servers = [nginx(self.folder, port) for port in ports]
        for server in servers:
            self.addCleanup(server.kill)
            server.start()
        return servers

    def ctl(self, agent, *words, status=0):
        result = subprocess.run([ARGS.agent, "ctl", "--socket", agent.socket, *words], capture_output=True, text=True,
                                timeout=30, check=False)
        self.assertEqual(result.returncode, status, result.stdout + result.stderr)
        return result.stdout if status == 0 else result.stderr

    def report(self, agent, service="web"):
        return json.loads(self.ctl(agent, "services", service, "--json"))["services"][0]

    def wait_for_backends(self, agent, *addresses):
        backends = lambda: [one["address"] for one in self.report(agent)["backends"]]  # noqa: E731
        self.wait_until(lambda: backends() == list(addresses), f"{addresses} do not become the backends")

    def wait_for_error(self, agent, text):
        self.wait_until(lambda: text in self.report(agent)["source_error"], f"nobody says {text!r}")

    def wait_for_health(self, agent):
        self.wait_until(lambda: self.report(agent)["source_error"] == "", "the source stays broken")

    def engine_of(self, agent):
        return json.loads(self.ctl(agent, "status", "--json"))["engine_pid"]

    def replace_engine(self, agent, how):
        before = self.engine_of(agent)
        how(before)
        self.wait_until(lambda: self.engine_of(agent) != before, "there is no new engine")

    def kill_engine(self, agent):
        self.replace_engine(agent, lambda pid: os.kill(pid, signal.SIGKILL))

    def in_container(self, agent, command):
        """What it prints, in a new container."""
        self.made += 1
        name = f"c{self.made}"
        folder = self.bundle(name, agent.socket, command, traps=("connect", "bind"), change=with_network)
        result = self.runtime("run", name, cwd=folder)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr + "".join(agent.lines))
        return result.stdout

    def ports(self, agent, count=12):
        """Those of the servers that a container gets answers from."""
        return set(self.in_container(agent, f"for i in $(seq {count}); do {GET}; done").split())
