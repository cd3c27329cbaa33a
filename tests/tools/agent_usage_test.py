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

    def test_announcements_that_nobody_could_make(self):
        arguments = ["--socket", self.socket, "--register", "etcd"]
        self.assert_wrong(arguments, r"--register etcd: should stand beside a configuration with multinode: \{etcd: ")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write("multinode: {etcd: {endpoints: ['http://127.0.0.1:1']}}\n")
            file.flush()
            self.assert_wrong([*arguments, "--config", file.name], "--register etcd: has no host-address")
        self.assert_wrong(["--socket", self.socket, "--register", "consul"], "--register: ")

    def test_what_is_no_user_or_no_descriptor(self):
        for uid in ("foo", "-1", "4294967295", "99999999999", ""):
            self.assert_wrong(["--socket", self.socket, "--allow-uid", uid],
                              rf'--allow-uid: "{uid}" should be a user id, as `id -u NAME` prints it')
        self.assert_wrong(["--socket", self.socket, "--ready-fd", "foo"],
                          '--ready-fd: "foo" should be a descriptor\'s number')

    def test_an_option_that_is_mistyped(self):
        for wrong, meant in (("--sock", "--socket"), ("--sokcet", "--socket"), ("--socket-", "--socket"),
                             ("--allow-uids", "--allow-uid"), ("--kube", "--kubeconfig")):
            for arguments in ([wrong, self.socket], [f"{wrong}={self.socket}"]):
                self.assert_wrong(arguments, f"unknown option {wrong}; is {meant} meant\\?")
        self.assert_wrong(["--entirely-different", "x"], r"unknown option --entirely-different \(")

    def test_what_the_kubernetes_resolver_is_told_by_its_environment(self):
        arguments = ["--socket", self.socket, "--resolver", "kubernetes"]
        server = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
        self.assert_wrong(arguments, 'NODE_NAME: no node can be called "bad name"; should be as', **server,
                          NODE_NAME="bad name")
        self.assert_wrong(arguments, 'KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: .* should be https://HOST:PORT',
                          **{**server, "KUBERNETES_SERVICE_PORT": "x"})
        self.assert_wrong(arguments, "KUBECONFIG: open /none/there: No such file or directory; should be a kubeconfig",
                          KUBECONFIG="/none/there")
        self.assert_wrong(arguments, 'KUBECONFIG: "/a:/b" should be one kubeconfig', KUBECONFIG="/a:/b")
        self.assert_wrong([*arguments, "--kubeconfig", "/none/there"],
                          "--kubeconfig: open /none/there: No such file or directory; should be a kubeconfig")
        self.assert_wrong([*arguments, "--kubeconfig", "/etc"], "--kubeconfig: read /etc: Is a directory; should be")


if __name__ == "__main__":
    SHUNT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
