#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent that is started again by a service manager that has kept its descriptors is reached on its sockets.

    agent_restart_test.py SHUNT

The manager is that of tests/support/stored_agent.py. Also: what an agent leaves behind that cannot start.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from stored_agent import StoredAgent  # noqa: E402  (found by the line above)

SHUNT = ""
PATIENCE = 60  # seconds; nothing here takes one


class AgentRestart(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="shunt-restart-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.agent = StoredAgent(self, SHUNT, self.folder)
        self.path = self.agent.socket

    def is_reached(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE)
            client.connect(self.path)
        status = subprocess.run([SHUNT, "ctl", "--socket", self.path, "status"], stdout=subprocess.DEVNULL,
                                timeout=PATIENCE, check=False)
        self.assertEqual(status.returncode, 0)

    def test_killed_it_keeps_the_very_sockets_that_it_had(self):
        before = os.stat(self.path).st_ino
        for _ in range(3):
            self.agent.end(signal.SIGKILL)
            self.agent.start()
            self.is_reached()
        self.assertEqual(os.stat(self.path).st_ino, before)

    def test_stopped_and_started_it_makes_new_sockets_in_place_of_those_it_has_removed(self):
        for _ in range(2):
            self.agent.end()
            self.assertFalse(os.path.exists(self.path))
            self.agent.start()
            self.is_reached()

    def test_an_upgrade_that_went_well_is_told_and_is_no_warning(self):
        subprocess.run([SHUNT, "ctl", "--socket", self.path, "upgrade"], check=True, timeout=PATIENCE)
        self.agent.end()
        lines = [line for line in self.agent.text().splitlines() if "upgrade" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertRegex(lines[0], r" info: upgraded: engine \d+ has taken over from \d+\Z")

    def test_what_a_source_has_found_is_there_again(self):
        listed, config = os.path.join(self.folder, "backends.yaml"), os.path.join(self.folder, "agent.yaml")
        with open(listed, "w", encoding="utf-8") as file:
            file.write("[192.0.2.1:80]")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"services: [{{name: web, address: '10.96.0.10:80', discover: {{file: {listed}}}}}]")
        folder = tempfile.mkdtemp(dir=self.folder)
        agent = StoredAgent(self, SHUNT, folder, "--config", config)

        def service():
            told = subprocess.run([SHUNT, "ctl", "--socket", agent.socket, "services", "web", "--json"],
                                  stdout=subprocess.PIPE, timeout=PATIENCE, check=True)
            return json.loads(told.stdout)["services"][0]

        def is_stored():
            with agent.store.lock:
                return any(name == "shunt.1.1.0" and b"192.0.2.1:80" in os.pread(fd, 4096, 0)
                           for name, fd in agent.store.kept)

        end = time.monotonic() + PATIENCE
        while not is_stored():
            self.assertLess(time.monotonic(), end, "what was found is not kept")
            time.sleep(0.01)
        os.unlink(listed)
        agent.end(signal.SIGKILL)
        agent.start()
        self.assertEqual([one["address"] for one in service()["backends"]], ["192.0.2.1:80"])
        self.assertNotEqual(service()["source_error"], "")

    def test_without_an_engine_it_ends_and_leaves_nothing_behind(self):
        path = os.path.join(self.folder, "other.sock")
        few = ["prlimit", "--nofile=21:21"]  # not enough for an engine
        result = subprocess.run([*few, SHUNT, "agent", "--socket", path], stderr=subprocess.PIPE, text=True,
                                timeout=PATIENCE, check=False)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("Too many open files", result.stderr)
        self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("other")], [])


if __name__ == "__main__":
    SHUNT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
