# SPDX-License-Identifier: Apache-2.0
"""On which side the container is: of a client of a server on the host or, in the arms "-published", of the server, which a
client on the host reaches at a published port."""

import contextlib
import dataclasses
import os
import signal
import subprocess

from scenarios.processes import processes_below
from scenarios.scenario import ARMS
from scenarios.stage import HOST, Stage, Unavailable

PUBLISHED = "-published"
BOTH = [*ARMS, *(arm + PUBLISHED for arm in ARMS[1:])]
MOVE_PORTS = ("shunt", "bypass4netns")  # the server's own socket listens on the host then


@dataclasses.dataclass(frozen=True)
class Sides:
    """`client`, `server`: what their commands begin with; `address`: what the server binds; `network`: whose container the
    server is in, None: on the host. The client connects to HOST either way."""

    client: list
    server: list
    address: str = HOST
    network: str = None


ON_HOST = Sides([], [])


def sides(stage, arm, port):
    """Raises Unavailable. Inside, the server is an ordinary user: some refuse to be root."""
    if not arm.endswith(PUBLISHED):
        return Sides(stage.arm_prefix(arm), [])
    network = arm.removesuffix(PUBLISHED)
    prefix = stage.arm_prefix(network)
    if network == "shunt":
        server = [*prefix[:-1], *lock_options(stage), "--publish", f"{HOST}:{port}:{port}", prefix[-1]]
    else:
        server = [prefix[0], "--publish", f"{HOST}:{port}", *prefix[1:]]
    ordinary = ["unshare", f"--map-user={os.getuid()}", f"--map-group={os.getgid()}", "--"]
    return Sides([], server + ordinary, "0.0.0.0", network)


def lock_options(stage):
    """Those by which shunt moves published ports to the host. Raises Unavailable where it would have the network forward them."""
    options = ["--lock-socket", stage.arguments.lock] if os.path.exists(stage.arguments.lock) else []  # bench/stage_link.py
    command = [stage.program("shunt"), "run", "--verbose", "--net", "none", *options, "--", "true"]
    tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    if "locks: eBPF" not in tried.stderr:
        raise Unavailable("published ports move to the host with the eBPF lock only: run it as root, or where shunt lock-server runs")
    return options


class Contained(subprocess.Popen):
    """A container with a server, whose first process this is. The server is asked to end, so that nothing of it is left, or made to,
    and the container ends with it."""

    def __init__(self, name, command, **more):
        super().__init__(command, start_new_session=True, **more)
        self.name = name[:15]  # as much of it as the kernel keeps

    def servers(self):
        """Processes of that name."""
        return [pid for pid, name in processes_below(self.pid).items() if name == self.name]

    def kill(self):
        for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            for pid in self.servers()[:1]:
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    os.kill(pid, number)
            try:
                self.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                pass
        Stage.end(self)
