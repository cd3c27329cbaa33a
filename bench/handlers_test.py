#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of how the scenario "handlers" measures the Kinvolk agent, with others in that one's place: our own agent, which takes
the same containers and has the same rules, and programs that cannot do it."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

SHUNT = os.environ["SHUNT"]
SKIPPED = 77
ARMS = ("seccompagent mkdir", "seccompagent refused", "seccompagent proc")


class StandIns(unittest.TestCase):
    def measure(self, script):
        """({arm: its first p50}, {arm: what became of it}) with this script in the place of the agent."""
        with tempfile.TemporaryDirectory() as directory:
            agent = os.path.join(directory, "seccompagent")
            with open(agent, "w", encoding="utf-8") as file:
                file.write("#!/bin/bash\n" + script)
            os.chmod(agent, 0o755)
            run = subprocess.run([SHUNT, "bench", "handlers", "--tiny", "--runs", "1", "--arms", ",".join(ARMS), "--peer",
                                  f"seccompagent={agent}", "--out", directory], capture_output=True, text=True, check=False,
                                 timeout=100)
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(os.path.join(directory, "results.json"), encoding="utf-8") as file:
                scenario = json.load(file)["scenarios"][0]
        return {arm: scenario["metrics"][0]["arms"][arm]["values"][0] for arm in ARMS}, scenario["notes"]

    def test_an_agent_with_the_rules_of_that_one_is_measured(self):
        # On the stage shunt lies beside the peers. Called as that agent is: -socketfile PATH -resolver NAME.
        values, notes = self.measure('exec "$(dirname "$(readlink -f "$0")")/../shunt" agent --socket "$2" --resolver "$4"\n')
        self.assertEqual(notes, {})
        for arm in ARMS:
            self.assertGreater(values[arm], 0, arm)

    def test_an_agent_without_these_rules_has_failed_and_not_been_quick(self):
        values, notes = self.measure('exec "$(dirname "$(readlink -f "$0")")/../shunt" agent --socket "$2" --resolver none\n')
        for arm in ARMS[:2]:  # proc is for root's taking anyway
            self.assertEqual((values[arm], notes[arm]["state"]), (None, "failed"), arm)

    def test_what_one_that_ends_has_said_is_told(self):
        _, notes = self.measure('echo "panic: no cluster for you" >&2; exit 2\n')
        for arm in ARMS:
            self.assertEqual(notes[arm]["state"], "failed")
            self.assertIn("panic: no cluster for you", notes[arm]["last_lines"])


if __name__ == "__main__":
    if os.getuid() != 0:
        print("skipped: that agent needs root")
        sys.exit(SKIPPED)
    unittest.main()
