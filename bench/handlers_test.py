#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of how the scenario "handlers" measures the Kinvolk agent, with others in that one's place: our own agent, which takes
the same containers and has the same rules, and programs that cannot do it."""

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

SHUNT = os.environ["SHUNT"]
SKIPPED = 77
ARMS = ("seccompagent mkdir", "seccompagent mkdir 4 threads", "seccompagent refused", "seccompagent proc")

# Mounts that are trapped are the kernel's affair, but for those without a type: it reads all of their strings, as that agent does.
READER = textwrap.dedent("""\
    #!/usr/bin/python3
    import errno, fcntl, socket, struct, sys
    RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(sys.argv[2])
        server.listen()
        listener = socket.recv_fds(server.accept()[0], 4096, 1)[1][0]
    while True:
        call = bytearray(80)
        fcntl.ioctl(listener, RECEIVE, call)
        id, file_system_type = struct.unpack_from("Q", call)[0], struct.unpack_from("Q", call, 48)[0]
        verdict = (0, CONTINUE) if file_system_type else (-errno.EFAULT, 0)
        fcntl.ioctl(listener, SEND, struct.pack("Qqii", id, 0, *verdict))
    """)


class StandIns(unittest.TestCase):
    def measure(self, script, arms=ARMS):
        """({arm: its first p50}, {arm: what became of it}) with this script in the place of the agent."""
        with tempfile.TemporaryDirectory() as directory:
            agent = os.path.join(directory, "seccompagent")
            with open(agent, "w", encoding="utf-8") as file:
                file.write(script if script.startswith("#!") else "#!/bin/bash\n" + script)
            os.chmod(agent, 0o755)
            run = subprocess.run([SHUNT, "bench", "handlers", "--tiny", "--runs", "1", "--arms", ",".join(arms), "--peer",
                                  f"seccompagent={agent}", "--out", directory], capture_output=True, text=True, check=False,
                                 timeout=100)
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(os.path.join(directory, "results.json"), encoding="utf-8") as file:
                scenario = json.load(file)["scenarios"][0]
        return {arm: scenario["metrics"][0]["arms"][arm]["values"][0] for arm in arms}, scenario["notes"]

    def test_an_agent_with_the_rules_of_that_one_is_measured(self):
        # On the stage shunt lies beside the peers. Called as that agent is: -socketfile PATH -resolver NAME.
        values, notes = self.measure('exec "$(dirname "$(readlink -f "$0")")/../shunt" agent --socket "$2" --resolver "$4"\n')
        self.assertEqual(notes, {})
        for arm in ARMS:
            self.assertGreater(values[arm], 0, arm)

    def test_an_agent_without_these_rules_has_failed_and_not_been_quick(self):
        values, notes = self.measure('exec "$(dirname "$(readlink -f "$0")")/../shunt" agent --socket "$2" --resolver none\n')
        for arm in ARMS[:3]:  # proc is for root's taking anyway
            self.assertEqual((values[arm], notes[arm]["state"]), (None, "failed"), arm)

    def test_an_agent_that_reads_all_strings_of_a_mount_is_measured(self):
        values, notes = self.measure(READER, ["seccompagent proc"])
        self.assertEqual(notes, {})
        self.assertGreater(values["seccompagent proc"], 0)

    def test_what_one_that_ends_has_said_is_told(self):
        _, notes = self.measure('printf "level=info\\npanic: no cluster for you\\n\\ngoroutine 1 [running]:\\n" >&2\n'
                                'seq -f "main.main.func%g()" 50 >&2; exit 2\n')
        for arm in ARMS:
            self.assertEqual((notes[arm]["state"], notes[arm]["last_lines"][0]), ("failed", "panic: no cluster for you"))


if __name__ == "__main__":
    if os.getuid() != 0:
        print("skipped: that agent needs root")
        sys.exit(SKIPPED)
    unittest.main()
