#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Who calls `shunt agent` wrongly reads one line that names the mistake and says what would be right; status 2.

    agent_usage_test.py SHUNT
"""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True

SHUNT = ""
PATIENCE = 60  # seconds; nothing here takes one


class AgentUsage(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="shunt-usage-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.socket = os.path.join(self.folder, "agent.sock")

    def assert_wrong(self, arguments, line, **environment):
        """`line`: a pattern for all of what is said."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
        # Whoever takes it for right would serve until it is killed.
        result = subprocess.run(["timeout", "-s", "KILL", str(PATIENCE), SHUNT, "agent", *arguments],
                                env={**clean, **environment}, capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertRegex(result.stderr, r"\Ashunt agent: [^\n]*" + line + r"[^\n]*\n\Z")
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_kubeconfig_for_which_nobody_asks(self):
        for resolver in ([], ["--resolver", "none"]):
            self.assert_wrong(["--socket", self.socket, "--kubeconfig", "/etc/kube.conf", *resolver],
                              r"--kubeconfig /etc/kube\.conf: should stand beside --resolver kubernetes")


if __name__ == "__main__":
    SHUNT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
