#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Containers connect all the time; meanwhile engines are killed, upgraded, and even the keeper is killed.

    tests/support/arena -- tests/survival/survival_test.py agent|run SHUNT CALLER ECHO_SERVER

No connect may fail or hang, and a connection that was there before must not notice. SHUNT_SURVIVAL=full does as often
as we promise (200 kills, 50 upgrades); else a tenth of it. The longest connect is printed.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from stored_agent import StoredAgent  # noqa: E402  (found by the line above)

HOST = "203.0.113.1"
PATIENCE = 120
CONTAINERS = 4
THREADS = 8
FULL = os.environ.get("SHUNT_SURVIVAL") == "full"
KILLS = 200 if FULL else 20
UPGRADES = 50 if FULL else 5
KEEPER_KILLS = 20 if FULL else 3


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def engines():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and name_of(entry) == "shunt-engine"]


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError("did not happen: " + what)
        time.sleep(0.005)
    return result


class Survival(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        server = subprocess.Popen([ECHO_SERVER, HOST, "0", "2"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        self.addCleanup(server.stdout.close)
        self.port = "".join(filter(str.isdigit, server.stdout.readline()))
        self.random = random.Random(os.environ.get("SHUNT_SURVIVAL_SEED", "1"))
        self.callers = []

    def spawn(self, command, stop):
        caller = subprocess.Popen([*command, CALLER_INSIDE, HOST, self.port, str(THREADS), stop], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        self.callers.append(caller)
        self.addCleanup(caller.wait)
        self.addCleanup(caller.kill)

    def wait_until_calling(self):
        for caller in self.callers:
            line = caller.stdout.readline()
            self.assertEqual(line, "calling\n", line or caller.stderr.read())

    def finish(self, stop, what):
        """Lets the callers end, and looks at what they have to say."""
        with open(stop, "w", encoding="ascii"):
            pass
        longest = connects = 0
        for caller in self.callers:
            output, errors = caller.communicate(timeout=PATIENCE)
            told = json.loads(output.splitlines()[-1]) if output else {"failures": {"the caller": errors}}
            self.assertEqual(told["failures"], {}, errors[-2000:])
            self.assertGreater(told["echoes"], 0)
            longest, connects = max(longest, told["longest_us"]), connects + told["connects"]
        print(f"{what}: {connects} connects, none failed; the longest took {longest / 1000:.1f} ms", flush=True)

    def kill_an_engine(self):
        time.sleep(self.random.uniform(0.02, 0.12))  # a random moment: waits for nothing
        victim = self.random.choice(until(engines, "an engine"))
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Run(Survival):
    def test_engines_of_shunt_run_are_killed(self):
        stop = os.path.join(self.folder, "stop")
        for _ in range(CONTAINERS):
            self.spawn([SHUNT, "run", "--net", "none", "--"], stop)
        self.wait_until_calling()
        for _ in range(KILLS):
            self.kill_an_engine()
        self.finish(stop, f"{KILLS} engines of shunt run killed")


class Agent(Survival):
    def setUp(self):
        super().setUp()
        self.rootfs = os.path.join(self.folder, "rootfs")
        for name in ("etc", "proc", "sys", "dev", "tmp"):
            os.makedirs(os.path.join(self.rootfs, name))
        shutil.copy(CALLER, os.path.join(self.rootfs, "caller"))
        self.agent = StoredAgent(self, SHUNT, self.folder)
        self.tag = os.urandom(4).hex()

    def start_containers(self):
        profile = subprocess.run([SHUNT, "profile", "--listener", self.agent.socket], check=True, stdout=subprocess.PIPE,
                                 text=True).stdout
        for number in range(CONTAINERS):
            name = f"survival-{self.tag}-{number}"
            bundle = os.path.join(self.folder, name)
            os.makedirs(bundle)
            subprocess.run(["runc", "spec"], cwd=bundle, check=True)
            path = os.path.join(bundle, "config.json")
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            config["process"].update(terminal=False, args=[CALLER_INSIDE, HOST, self.port, str(THREADS), "/tmp/stop"])
            config["process"].pop("rlimits", None)
            config["root"] = {"path": self.rootfs, "readonly": False}
            config["linux"]["seccomp"] = json.loads(profile)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(config, file)
            command = ["runc", "--root", os.path.join(self.folder, "state")]
            self.callers.append(subprocess.Popen([*command, "run", "--bundle", bundle, name], stdin=subprocess.DEVNULL,
                                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            self.addCleanup(subprocess.run, [*command, "delete", "--force", name], stderr=subprocess.DEVNULL,
                            check=False)
        self.wait_until_calling()

    def upgrade(self):
        # Straight after a kill there may be no engine to upgrade, which it says.
        end = time.monotonic() + PATIENCE
        while (result := subprocess.run([SHUNT, "ctl", "--socket", self.agent.socket, "upgrade"], stderr=subprocess.PIPE,
                                        text=True, check=False)).returncode != 0:
            self.assertLess(time.monotonic(), end, result.stderr + self.agent.text())

    def test_engines_of_an_agent_are_killed_and_upgraded(self):
        self.start_containers()
        upgrades = set(self.random.sample(range(KILLS), UPGRADES))
        for number in range(KILLS):
            self.kill_an_engine()
            if number in upgrades:
                before = until(engines, "an engine")
                self.upgrade()
                until(lambda: not set(before) & set(engines()), "the end of the old engine")
        self.finish(os.path.join(self.rootfs, "tmp/stop"), f"{KILLS} engines of an agent killed, {UPGRADES} upgraded")

    def test_only_upgrades(self):
        self.start_containers()
        for _ in range(UPGRADES):
            self.upgrade()
        self.finish(os.path.join(self.rootfs, "tmp/stop"), f"{UPGRADES} upgrades")

    def test_the_keeper_is_killed_and_started_again_by_a_service_manager(self):
        self.start_containers()
        for _ in range(KEEPER_KILLS):
            time.sleep(self.random.uniform(0.05, 0.3))  # a random moment: waits for nothing
            old = engines()
            self.agent.end(signal.SIGKILL)
            until(lambda: not set(old) & set(engines()), "the end of the old engine with its keeper")
            self.agent.start()
        self.finish(os.path.join(self.rootfs, "tmp/stop"), f"{KEEPER_KILLS} keepers killed")


if __name__ == "__main__":
    SHUNT, CALLER, ECHO_SERVER = sys.argv[2:5]
    CALLER_INSIDE = CALLER if sys.argv[1] == "run" else "/caller"
    if sys.argv[1] == "agent" and not shutil.which("runc"):
        print("skipped: runc is not installed")
        sys.exit(77)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Run if sys.argv[1] == "run" else Agent)
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
