# SPDX-License-Identifier: Apache-2.0
"""Calls that are made on a container's behalf, or refused."""

import os
import shutil
import subprocess
import tempfile
import time

from scenarios.scenario import Scenario
from scenarios.stage import Failed, Unavailable

TRAPPED = {"mkdir": "mkdir", "proc": "mount", "chmod": "chmod"}

ACCEPTS = "00010000"  # among the flags of /proc/net/unix


def is_listening(path):
    """Whether a process listens at this path of a socket: it is there a moment before."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        return any(line.split()[3] == ACCEPTS and line.rstrip().endswith(f" {path}") for line in list(file)[1:])


class Handlers(Scenario):
    """`refused`: the price of a no; `bare` is its floor, a loop that says nothing else. mkdir makes a directory under another
    name. A device is made in its place (mknod) or, in a container with a user namespace of its own, as a mount; proc is mounted
    with eight masks, natively and by the Kinvolk agent with none; these two with a millisecond from one to the next. Threads of
    one container share its engine. What the Kinvolk agent refuses is chmod, with its demo-basic rules."""

    title = "calls on a tmpfs that are made for a container, or refused"
    arms = ["bare refused", "shunt refused", "seccompagent refused",
            "native mkdir", "shunt mkdir", "shunt mkdir 4 threads", "seccompagent mkdir",
            "seccompagent mkdir 4 threads",
            "native mknod", "shunt mknod", "shunt device",
            "native proc", "shunt proc", "seccompagent proc"]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower"), "rate": ("calls/s", "higher")}
    links_engine = [arm for arm in arms if arm.startswith("shunt")]
    as_root = os.getuid() == 0  # who alone makes devices; the rest anybody can

    def base(self, arm):
        floor = self.floor(arm)
        return None if arm == floor else floor

    def floor(self, arm):
        deed = arm.split()[1]
        return "bare refused" if deed == "refused" else "native mknod" if deed == "device" else f"native {deed}"

    def measure(self, arm):
        self.stage.stop_servers()
        who, deed, *threads = arm.split()
        if os.getuid() != 0 and (deed == "mknod" or who == "seccompagent"):
            raise Unavailable("only root makes devices" if deed == "mknod" else "that agent needs root")
        count = 500 if self.tiny else 20000 if deed in ("mkdir", "refused") else 2000
        if who == "seccompagent":
            return self.under_seccompagent("chmod" if deed == "refused" else deed, count, threads[0] if threads else "1")
        manner = deed if deed == "refused" and who == "shunt" else {"bare": "bare", "native": "native", "shunt": "inside"}[who]
        return self.deeds("mkdir" if deed == "refused" else deed, manner, count, threads=threads[0] if threads else "1")

    def deeds(self, deed, manner, count, prefix=(), **more):
        command = [*prefix, self.stage.program("deeds"), "--deed", deed, "--arm", manner, "--count", str(count)]
        for name, value in more.items():
            command += [f"--{name}", value]
        measured = self.stage.json(command, 180)
        # With pauses between them there is no rate to speak of.
        return {**self.latencies(measured, ["p50", "p99"]),
                "rate": None if deed in ("device", "proc") else measured["per_second"]}

    def under_seccompagent(self, deed, count, threads):
        """A process of root's, as runc starts them by default, whose agent that one is. It appends the pid to directories."""
        if shutil.which("seccompagent") is None:
            raise Unavailable("seccompagent is not on PATH (--peer seccompagent=PATH)")
        folder = tempfile.mkdtemp(prefix="seccompagent-")
        socket, log = os.path.join(folder, "sock"), os.path.join(folder, "log")
        with open(log, "w", encoding="utf-8") as file:
            agent = subprocess.Popen(["seccompagent", "-socketfile", socket, "-resolver", "demo-basic"],
                                     stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.stage.servers.append(agent)
        try:
            deadline = time.monotonic() + 10
            while not is_listening(socket):
                if agent.poll() is not None or time.monotonic() > deadline:
                    raise self.with_log("seccompagent did not start", log)
                time.sleep(0.01)
            notified = [self.stage.program("notified"), "--socket", socket, "--trap", TRAPPED[deed], "--"]
            here = ["sh", "-c", 'exec "$0" "$@" --suffix "-pid-$$"', "unshare", "--mount", *notified]
            return self.deeds(deed, "alone", count, here, threads=threads)
        except Failed as error:
            raise self.with_log(str(error), log) from None
        finally:
            self.stage.stop_servers()
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def with_log(why, path):
        with open(path, encoding="utf-8", errors="replace") as file:
            return Failed(why, file.read().splitlines())
