#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""deploy/kubernetes agrees with what the program knows, and with itself: deploy_kubernetes_test.py SHUNT"""

import json
import os
import re
import shlex
import subprocess
import sys
import unittest

try:
    import yaml
except ImportError:
    yaml = None

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FOLDER = os.path.join(ROOT, "deploy", "kubernetes")
SKIP = 77
SHUNT = ""


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def documents(name):
    return list(yaml.safe_load_all(read("deploy", "kubernetes", name)))


class DeployKubernetes(unittest.TestCase):
    def setUp(self):
        self.kustomization, = documents("kustomization.yaml")
        self.objects = [one for name in self.kustomization["resources"] for one in documents(name)]
        self.pod = self.object("DaemonSet")["spec"]["template"]["spec"]
        self.agent, = self.pod["containers"]
        self.options = dict(argument[2:].split("=", 1) for argument in self.agent["args"][1:])
        self.profile = json.loads(read("deploy", "kubernetes", "shunt.json"))

    def object(self, kind):
        found, = [one for one in self.objects if one["kind"] == kind]
        return found

    def files_of(self, name):
        generator, = [one for one in self.kustomization["configMapGenerator"] if one["name"] == name]
        return generator["files"]

    def mounts(self, container):
        """{path inside: (volume, whether it is read-only)}"""
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        return {mount["mountPath"]: (volumes[mount["name"]], mount.get("readOnly", False))
                for mount in container["volumeMounts"]}

    def test_everything_that_lies_there_is_used(self):
        named = {*self.kustomization["resources"], *self.files_of("agent"), *self.files_of("profile"),
                 "kustomization.yaml", "README.md", "Containerfile"}
        self.assertEqual(set(os.listdir(FOLDER)), named)
        for one in self.objects:
            if one["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
                self.assertEqual(one["metadata"]["namespace"], self.kustomization["namespace"])
        self.assertEqual(self.object("Namespace")["metadata"]["name"], self.kustomization["namespace"])

    def test_the_options_are_the_programs(self):
        told = subprocess.run([SHUNT, "agent", "--help"], capture_output=True, text=True, check=True).stdout
        for option in self.options:
            self.assertRegex(told, rf"(?m)^  --{option}\b")
        self.assertIn(self.options["resolver"], told)
        self.assertEqual(self.agent["args"][0], "agent")

    def test_runtimes_find_the_socket_that_the_profile_names(self):
        socket = self.options["socket"]
        self.assertEqual(self.profile["listenerPath"], socket)
        volume, read_only = self.mounts(self.agent)[os.path.dirname(socket)]
        self.assertEqual(volume["hostPath"]["path"], os.path.dirname(socket))
        self.assertFalse(read_only)
        self.assertIn(socket, self.agent["readinessProbe"]["exec"]["command"])

    def test_the_kubelet_finds_the_profile(self):
        copier, = self.pod["initContainers"]
        _, source, target = copier["command"]
        mounts = self.mounts(copier)
        self.assertIn(os.path.basename(source), self.files_of("profile"))
        self.assertEqual(mounts[os.path.dirname(source)][0]["configMap"]["name"], "profile")
        self.assertEqual(mounts[os.path.dirname(target)][0]["hostPath"]["path"], "/var/lib/kubelet/seccomp")
        self.assertIn(f"localhostProfile: {os.path.basename(target)}", read("deploy", "kubernetes", "README.md"))

    def test_the_profile_is_what_the_program_makes(self):
        command, = re.findall(r"^    (shunt profile .*)$", read("deploy", "kubernetes", "README.md"), re.MULTILINE)
        words = shlex.split(command)
        base = words[words.index("--base") + 1]
        if not os.path.exists(base):
            self.skipTest(f"{base}, which podman brings, is not there")
        made = subprocess.run([SHUNT, *words[1:]], capture_output=True, text=True, check=True).stdout
        self.assertEqual(json.loads(made), self.profile)

    def test_the_configuration_is_right(self):
        name = os.path.basename(self.options["config"])
        self.assertIn(name, self.files_of("agent"))
        self.assertEqual(self.mounts(self.agent)[os.path.dirname(self.options["config"])][0]["configMap"]["name"], "agent")
        checked = subprocess.run([SHUNT, "agent", "--check-config", os.path.join(FOLDER, name)], capture_output=True,
                                 text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertNotIn("NEVER USED", checked.stdout)

    def test_it_has_the_capabilities_that_it_keeps_and_no_others(self):
        table = read("docs", "security.md").split("### The engine's own confinement")[1].split("\n### ")[0]
        kept = set(re.findall(r"^\| [^|]*\| CAP_(\w+) \(", table, re.MULTILINE))
        self.assertGreater(len(kept), 3)
        security = self.agent["securityContext"]
        self.assertEqual(set(security["capabilities"]["add"]), kept)
        self.assertEqual(security["capabilities"]["drop"], ["ALL"])
        self.assertNotIn("privileged", security)
        self.assertTrue(security["readOnlyRootFilesystem"])

    def test_it_may_read_single_pods_and_hear_of_services_and_nothing_else(self):
        self.assertEqual(self.object("ClusterRole")["rules"],
                         [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                          {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
                          {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]}])
        account = self.object("ServiceAccount")["metadata"]
        self.assertEqual(self.pod["serviceAccountName"], account["name"])
        self.assertEqual(self.object("ClusterRoleBinding")["subjects"],
                         [{"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}])
        self.assertEqual(self.object("ClusterRoleBinding")["roleRef"]["name"], self.object("ClusterRole")["metadata"]["name"])
        # Where annotations do not tell a pod's names, the kubelet's folder has to: only it spares the right to list.
        volume, read_only = self.mounts(self.agent)["/var/log/pods"]
        self.assertEqual((volume["hostPath"]["path"], read_only), ("/var/log/pods", True))

    def test_it_sees_what_it_serves(self):
        self.assertTrue(self.pod["hostPID"] and self.pod["hostNetwork"])
        names = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in self.agent["env"]}
        self.assertEqual(names["NODE_NAME"], "spec.nodeName")
        host, port = self.options["metrics-bind-address"].rsplit(":", 1)
        self.assertIn(host.strip("$()"), names)
        self.assertEqual([one["containerPort"] for one in self.agent["ports"] if one["name"] == "metrics"], [int(port)])


if __name__ == "__main__":
    SHUNT = os.path.abspath(sys.argv.pop(1))
    if yaml is None:
        print("skipped: python3-yaml is not installed")
        sys.exit(SKIP)
    unittest.main(argv=[sys.argv[0], "-v"])
