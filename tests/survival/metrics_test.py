#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Metrics are asked for all the time; meanwhile engines are killed and upgraded, and the keeper is killed.

    tests/support/arena -- tests/survival/metrics_test.py SHUNT

The port stays bound whatever dies: nobody is refused. Who asks an engine that dies just then may get nothing, but is told
so in bounded time; all others are answered. Counters of calls go on from engine to engine.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import kube  # noqa: E402  (found by the line above)
from scrape import samples  # noqa: E402
from stored_agent import StoredAgent  # noqa: E402

PATIENCE = 60
BOUND = 10  # seconds for one scrape, of which an engine takes some hundredths to come back
ROUNDS = 10 if os.environ.get("SHUNT_SURVIVAL") == "full" else 3


class Scraper(threading.Thread):
    """Scrapes without a pause. `results`: (begun, ended, samples or the reason why there are none)."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url = url
        self.results = []
        self.fresh = threading.Condition()
        self.stopped = False
        self.start()

    def run(self):
        while not self.stopped:
            begun = time.monotonic()
            try:
                with urllib.request.urlopen(self.url, timeout=BOUND) as answer:
                    result = samples(answer.read().decode())
            except (OSError, urllib.error.URLError) as error:
                result = str(getattr(error, "reason", error))
            except Exception as error:  # of http.client: an answer that ends too early
                result = repr(error)
            with self.fresh:
                self.results.append((begun, time.monotonic(), result))
                self.fresh.notify_all()

    def next_answer(self, when=None):
        """The first one that is asked for, and answered, after `when`: now."""
        when = when or time.monotonic()
        with self.fresh:
            def find():
                return next((result for begun, _, result in self.results if begun >= when and isinstance(result, dict)),
                            None)
            self.fresh.wait_for(find, PATIENCE)
            return find()

    def stop(self):
        self.stopped = True
        self.join(PATIENCE)


class Metrics(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        config = os.path.join(self.folder, "agent.yaml")
        with open(config, "w", encoding="ascii") as file:
            file.write("middleware: [prometheus]\n")
        self.agent = StoredAgent(self, SHUNT, self.folder, "--config", config, "--metrics-bind-address", "127.0.0.1:9464")
        self.scraper = Scraper("http://127.0.0.1:9464/metrics")
        self.addCleanup(self.scraper.stop)

    def ctl(self, command, *options):
        return subprocess.run([SHUNT, "ctl", "--socket", self.agent.socket, command, *options], capture_output=True, text=True,
                              check=False, timeout=PATIENCE)

    def engine(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if (status := self.ctl("status", "--json")).returncode == 0:
                return json.loads(status.stdout)["engine_pid"]
        self.fail("no engine answers: " + self.agent.text())

    def call(self, name):
        """A container's trapped call."""
        container = kube.Container(self.agent.socket, name, {})
        self.addCleanup(container.process.wait)
        self.addCleanup(container.process.kill)
        self.assertEqual(container.answer(), "ENOENT", self.agent.text())
        return container

    def wait_until_stored(self):
        """The keeper hears of a container when its engine serves it already, and the store after that."""
        end = time.monotonic() + PATIENCE
        while True:
            self.agent.store.settle()
            with self.agent.store.lock:
                if any(name.startswith("shunt.5.") and name.endswith(".1") for name, _ in self.agent.store.kept):
                    return
            self.assertLess(time.monotonic(), end, "no container is stored")

    def assert_all_were_told(self, what):
        with self.scraper.fresh:
            results = list(self.scraper.results)
        lost = [(begun, reason) for begun, _, reason in results if not isinstance(reason, dict)]
        longest = max(ended - begun for begun, ended, _ in results)
        self.assertLess(longest, BOUND, lost)
        self.assertEqual([reason for _, reason in lost if "refused" in reason], [])
        self.assertLess(len(lost), len(results))
        print(f"{what}: {len(results)} scrapes, {len(lost)} without an answer; the longest took {longest:.2f} s", flush=True)
        return lost

    def test_engines_are_killed_and_upgraded(self):
        self.call("first")
        received = self.scraper.next_answer()["shunt_received_total", ()]
        self.assertGreater(received, 0)
        for number in range(ROUNDS):
            before = self.engine()
            os.kill(before, signal.SIGKILL)
            after_kill = self.scraper.next_answer()
            upgraded = self.ctl("upgrade")
            self.assertEqual(upgraded.returncode, 0, upgraded.stderr + self.agent.text())
            after_upgrade = self.scraper.next_answer()
            self.assertNotEqual(self.engine(), before)
            for answer in (after_kill, after_upgrade):
                self.assertGreaterEqual(answer["shunt_received_total", ()], received)
                self.assertEqual(answer["shunt_listeners", ()], 1 + number)
            self.call(f"next{number}")
            now = self.scraper.next_answer()["shunt_received_total", ()]
            self.assertGreater(now, received)
            received = now
        lost = self.assert_all_were_told(f"{ROUNDS} engines killed, {ROUNDS} upgraded")
        # Each engine that goes has a scrape of this one asker's in hand, or none.
        self.assertLessEqual(len(lost), 2 * ROUNDS)

    def test_the_keeper_is_killed_and_started_again_by_a_service_manager(self):
        for number in range(ROUNDS):
            container = self.call(f"c{number}")
            self.wait_until_stored()
            self.agent.end(signal.SIGKILL)
            self.agent.start()
            answer = self.scraper.next_answer()
            self.assertEqual(answer["shunt_listeners", ()], 1)
            container.end()
            while self.scraper.next_answer()["shunt_listeners", ()] != 0:
                pass
        lost = self.assert_all_were_told(f"{ROUNDS} keepers killed")
        self.assertLessEqual(len(lost), ROUNDS)


if __name__ == "__main__":
    SHUNT = os.path.abspath(sys.argv[1])
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Metrics)
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
