#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The agent and a real kube-apiserver: kube_apiserver_test.py SHUNT

The server is $SHUNT_KUBE_APISERVER, or the one on PATH; Debian 12 has it as source only (package kubernetes), and etcd as
etcd-server. It takes the manifests of deploy/kubernetes, and the agent has the rights that those give it and no others.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

try:
    import yaml
except ImportError:
    yaml = None

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../support"))
import kube  # noqa: E402  (found by the line above)
from runtime_case import ARGS, Agent  # noqa: E402

ARENA = os.path.join(HERE, "../support/arena")
MANIFESTS = os.path.join(HERE, "../../deploy/kubernetes")
PATIENCE = 120  # seconds, for the server's start
SERVER = os.environ.get("SHUNT_KUBE_APISERVER") or shutil.which("kube-apiserver")
ADMIN, AGENT = "admin-token", "agent-token"
PATHS = {"Namespace": "/api/v1/namespaces", "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
         "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
         "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
         "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets", "Pod": "/api/v1/namespaces/{}/pods"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class KubeApiserver(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        kube.make_authority(cls.folder, "ca")
        kube.sign(cls.folder, "ca", "server", "IP:127.0.0.1")
        kube.openssl("genrsa", "-out", "accounts.key", "2048", cwd=cls.folder)
        with open(os.path.join(cls.folder, "tokens.csv"), "w", encoding="ascii") as file:
            file.write(f'{ADMIN},admin,1,"system:masters"\n{AGENT},system:serviceaccount:shunt:shunt-agent,2\n')
        cls.log = open(os.path.join(cls.folder, "log"), "w+", encoding="utf-8", errors="replace")
        cls.addClassCleanup(cls.log.close)
        etcd, peers, cls.port = free_port(), free_port(), free_port()
        cls.run_program("etcd", "--data-dir", cls.folder + "/etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}",
                        "--advertise-client-urls", f"http://127.0.0.1:{etcd}",
                        "--listen-peer-urls", f"http://127.0.0.1:{peers}")
        cls.run_program(
            SERVER, "--etcd-servers", f"http://127.0.0.1:{etcd}", "--secure-port", str(cls.port),
            "--bind-address", "127.0.0.1", "--external-hostname", "localhost",
            "--tls-cert-file", cls.folder + "/server.crt", "--tls-private-key-file", cls.folder + "/server.key",
            "--cert-dir", cls.folder, "--token-auth-file", cls.folder + "/tokens.csv", "--authorization-mode", "RBAC",
            "--service-account-key-file", cls.folder + "/accounts.key",
            "--service-account-signing-key-file", cls.folder + "/accounts.key",
            "--service-account-issuer", "https://localhost", "--service-cluster-ip-range", "10.96.0.0/16",
            "--disable-admission-plugins", "ServiceAccount")
        end = time.monotonic() + PATIENCE
        while cls.ask("GET", "/readyz")[0] != 200:
            if time.monotonic() > end:
                cls.log.seek(0)
                raise AssertionError("the server does not start:\n" + cls.log.read()[-5000:])
            time.sleep(0.1)  # nobody tells when it is ready
        for name in ("namespace.yaml", "rbac.yaml", "daemonset.yaml"):
            with open(os.path.join(MANIFESTS, name), encoding="utf-8") as file:
                for one in yaml.safe_load_all(file):
                    cls.create(one)
        cls.create({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "prod"}})
        made = cls.create({"kind": "Pod", "apiVersion": "v1",
                           "metadata": {"name": "web-1", "namespace": "prod", "labels": {"app": "web"},
                                        "annotations": {"tier": "front"}},
                           "spec": {"nodeName": "node-1", "containers": [{"name": "nginx", "image": "nginx:1"}]}})
        cls.uid = made["metadata"]["uid"]

    @classmethod
    def run_program(cls, *command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=cls.log, stderr=cls.log, cwd=cls.folder)
        cls.addClassCleanup(process.wait)
        cls.addClassCleanup(process.kill)

    @classmethod
    def ask(cls, method, path, body=None):
        request = urllib.request.Request(f"https://127.0.0.1:{cls.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": "Bearer " + ADMIN, "Content-Type": "application/json"})
        context = ssl.create_default_context(cafile=cls.folder + "/ca.crt")
        try:
            with urllib.request.urlopen(request, context=context, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @classmethod
    def create(cls, one):
        code, text = cls.ask("POST", PATHS[one["kind"]].format(one["metadata"].get("namespace")), one)
        if code != 201:
            raise AssertionError(f"the server does not take {one['kind']} {one['metadata']['name']}: {code} {text}")
        return json.loads(text)

    def start_agent(self, token, **environment):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        kube.write_kubeconfig(folder + "/kubeconfig", f"https://127.0.0.1:{self.port}", self.folder + "/ca.crt",
                              {"token": token})
        with open(folder + "/agent.yaml", "w", encoding="utf-8") as file:
            file.write(kube.CONFIG)
        self.tag = os.urandom(4).hex()
        self.agent = Agent(folder, self.tag, "--verbose", "--resolver", "kubernetes", "--kubeconfig", folder + "/kubeconfig",
                           "--config", folder + "/agent.yaml", environment=environment)
        self.addCleanup(self.agent.stop)
        self.assertEqual(self.agent.ready, b"\x01", "".join(self.agent.lines))

    def assert_becomes(self, annotations, wanted):
        container = kube.Container(self.agent.socket, f"c-{self.tag}", annotations)
        self.addCleanup(container.process.wait)
        self.addCleanup(container.process.kill)
        self.assertEqual(container.answer(), wanted, "".join(self.agent.lines))
        container.end()

    def test_a_pod_is_known_by_its_names(self):
        self.start_agent(AGENT)
        self.assert_becomes(kube.annotations_of("web-1", self.uid), "EBADMSG")
        self.agent.wait_for(rf"it is .* nginx of pod prod/web-1 \(uid {self.uid}\)")

    def test_another_pod_of_that_name_is_not_it(self):
        self.start_agent(AGENT)
        self.assert_becomes(kube.annotations_of("web-1", kube.UID), "ENOENT")
        self.agent.wait_for(rf"warning: .*another one now, with uid {self.uid}")

    def test_a_pod_that_is_not_there(self):
        self.start_agent(AGENT)
        self.assert_becomes(kube.annotations_of("web-2", self.uid), "ENOENT")
        self.agent.wait_for(r'warning: .*it answers 404: pods "web-2" not found')

    def test_the_manifests_give_no_right_to_list(self):
        self.start_agent(AGENT, NODE_NAME="node-1")
        self.assert_becomes({"io.kubernetes.cri.sandbox-uid": self.uid}, "ENOENT")
        self.agent.wait_for(r"warning: .*it answers 403: pods is forbidden: .*right to list pods")

    def test_who_may_list_finds_a_pod_by_its_uid(self):
        self.start_agent(ADMIN, NODE_NAME="node-1")
        self.assert_becomes({"io.kubernetes.cri.sandbox-uid": self.uid}, "EBADMSG")
        self.agent.wait_for(rf"it is .* nginx of pod prod/web-1 \(uid {self.uid}\)")

    def test_a_token_that_the_server_does_not_know(self):
        self.start_agent("nobody's-token")
        self.assert_becomes(kube.annotations_of("web-1", self.uid), "ENOENT")
        self.agent.wait_for(r"warning: .*it answers 401: Unauthorized; give the agent a token")


def run():
    ARGS.agent = os.path.abspath(sys.argv[1])
    for what, there in (("kube-apiserver", SERVER), ("etcd", shutil.which("etcd")), ("openssl", shutil.which("openssl")),
                        ("python3-yaml", yaml)):
        if not there:
            print(f"skipped: {what} is not installed")
            return kube.SKIP
    if "--inside" not in sys.argv:
        return subprocess.run([ARENA, "--", sys.executable, *sys.argv, "--inside"], check=False).returncode
    return 0 if unittest.main(argv=[sys.argv[0], "-v"], exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(run())
