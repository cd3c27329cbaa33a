#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The agent and a real kube-apiserver: kube_apiserver_test.py SHUNT

It takes the manifests of deploy/kubernetes whole, and the agent, with a token of their account, may do what they say and
nothing else. A server that is too old for discovery.k8s.io/v1 gets its EndpointSlices as resources that are defined here. The
server is $SHUNT_KUBE_APISERVER, or the one on PATH, and etcd comes with the package etcd-server.

A server is built from Debian's source package kubernetes in GOPATH mode, with modern-go/reflect2 of the package
golang-github-modern-go-reflect2-dev in place of the vendored one, which crashes when built with Go 1.19. Before
cmd/kube-apiserver (`-tags providerless` spares the clouds) build vendor/k8s.io/kube-openapi/cmd/openapi-gen, and have it make
pkg/generated/openapi, as build/root/Makefile.generated_files does, of the packages marked `+k8s:openapi-gen`.
"""

import copy
import itertools
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
ADMIN = "admin-token"
PATHS = {"Namespace": "/api/v1/namespaces", "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
         "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
         "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
         "ConfigMap": "/api/v1/namespaces/{}/configmaps",
         "Service": "/api/v1/namespaces/{}/services",
         "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
         "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
         "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets", "Pod": "/api/v1/namespaces/{}/pods"}


SLICES = PATHS["EndpointSlice"].format("prod")
SLICES_DEFINED = {
    "kind": "CustomResourceDefinition", "apiVersion": "apiextensions.k8s.io/v1",
    "metadata": {"name": "endpointslices.discovery.k8s.io",
                 "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
    "spec": {"group": "discovery.k8s.io", "scope": "Namespaced",
             "names": {"plural": "endpointslices", "kind": "EndpointSlice", "listKind": "EndpointSliceList"},
             "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                 "type": "object", "x-kubernetes-preserve-unknown-fields": True}}}]}}


def read_manifests():
    """What `kubectl apply -k` sends, but for the suffix of the ConfigMaps' names."""
    def documents(name):
        with open(os.path.join(MANIFESTS, name), encoding="utf-8") as file:
            return list(yaml.safe_load_all(file))
    kustomization, = documents("kustomization.yaml")
    objects = [one for name in kustomization["resources"] for one in documents(name)]
    for generator in kustomization["configMapGenerator"]:
        data = {}
        for name in generator["files"]:
            with open(os.path.join(MANIFESTS, name), encoding="utf-8") as file:
                data[name] = file.read()
        objects.append({"kind": "ConfigMap", "apiVersion": "v1", "data": data,
                        "metadata": {"name": generator["name"], "namespace": kustomization["namespace"]}})
    return objects


def lost(sent, kept, path=""):
    """The fields of `sent` that are not in `kept`: a server leaves out what it does not know, without a word."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [what for key, value in sent.items() for what in lost(value, kept.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) <= len(kept):
        return [what for number, value in enumerate(sent) for what in lost(value, kept[number], f"{path}[{number}]")]
    return [] if sent == kept else [f"{path}: {sent!r} became {kept!r}"]


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
            file.write(f'{ADMIN},admin,1,"system:masters"\n')
        cls.log = open(os.path.join(cls.folder, "log"), "w+", encoding="utf-8", errors="replace")
        cls.addClassCleanup(cls.log.close)
        etcd, peers, cls.port = free_port(), free_port(), free_port()
        cls.run_program("etcd", "--data-dir", cls.folder + "/etcd", "--listen-client-urls", f"http://127.0.0.1:{etcd}",
                        "--advertise-client-urls", f"http://127.0.0.1:{etcd}",
                        "--listen-peer-urls", f"http://127.0.0.1:{peers}")
        command = [
            SERVER, "--etcd-servers", f"http://127.0.0.1:{etcd}", "--secure-port", str(cls.port),
            "--bind-address", "127.0.0.1", "--external-hostname", "localhost",
            "--tls-cert-file", cls.folder + "/server.crt", "--tls-private-key-file", cls.folder + "/server.key",
            "--cert-dir", cls.folder, "--token-auth-file", cls.folder + "/tokens.csv", "--authorization-mode", "RBAC",
            "--service-account-key-file", cls.folder + "/accounts.key",
            "--service-account-signing-key-file", cls.folder + "/accounts.key",
            "--service-account-issuer", "https://localhost", "--service-cluster-ip-range", "10.96.0.0/16",
            "--disable-admission-plugins", "ServiceAccount"]
        server = cls.start_server(*command)
        too_old = cls.ask("GET", "/apis/discovery.k8s.io/v1")[0] == 404
        if too_old:
            # What it has of them is an older version, beside which no other can be defined.
            server.kill()
            server.wait()
            cls.start_server(*command, "--runtime-config=discovery.k8s.io/v1beta1=false")
        cls.manifests = read_manifests()
        cls.taken = [cls.create(one) for one in cls.manifests]
        cls.create({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "prod"}})
        made = cls.create({"kind": "Pod", "apiVersion": "v1",
                           "metadata": {"name": "web-1", "namespace": "prod", "labels": {"app": "web"},
                                        "annotations": {"tier": "front"}},
                           "spec": {"nodeName": "node-1", "containers": [{"name": "nginx", "image": "nginx:1"}]}})
        cls.uid = made["metadata"]["uid"]
        cls.pod = "/api/v1/namespaces/prod/pods/web-1"
        cls.token = cls.make_token("shunt-agent")
        kube.write_kubeconfig(cls.folder + "/agent.kubeconfig", f"https://127.0.0.1:{cls.port}", cls.folder + "/ca.crt",
                              {"token": cls.token})
        cls.wait_for_right(cls.token, cls.pod)
        if too_old:
            cls.create(SLICES_DEFINED)
        cls.wait_for_right(cls.token, SLICES)

    @classmethod
    def start_server(cls, *command):
        process = cls.run_program(*command)
        end = time.monotonic() + PATIENCE
        while cls.ask("GET", "/readyz")[0] != 200:
            if time.monotonic() > end:
                cls.log.seek(0)
                raise AssertionError("the server does not start:\n" + cls.log.read()[-5000:])
            time.sleep(0.1)  # nobody tells when it is ready
        return process

    @classmethod
    def run_program(cls, *command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=cls.log, stderr=cls.log, cwd=cls.folder)
        cls.addClassCleanup(process.wait)
        cls.addClassCleanup(process.kill)
        return process

    @classmethod
    def ask(cls, method, path, body=None, token=ADMIN):
        request = urllib.request.Request(f"https://127.0.0.1:{cls.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": "Bearer " + token, "Content-Type": "application/json"})
        context = ssl.create_default_context(cafile=cls.folder + "/ca.crt")
        try:
            with urllib.request.urlopen(request, context=context, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    @classmethod
    def create(cls, one, options=""):
        code, text = cls.ask("POST", PATHS[one["kind"]].format(one["metadata"].get("namespace")) + options, one)
        if code != 201:
            raise AssertionError(f"the server does not take {one['kind']} {one['metadata']['name']}: {code} {text}")
        return json.loads(text)

    @classmethod
    def make_token(cls, account):
        """As the kubelet gets it that it puts into the account's pods."""
        code, text = cls.ask("POST", PATHS["ServiceAccount"].format("shunt") + f"/{account}/token",
                             {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}})
        if code != 201:
            raise AssertionError(f"the server makes no token for {account}: {code} {text}")
        return json.loads(text)["status"]["token"]

    @classmethod
    def wait_for_right(cls, token, path):
        end = time.monotonic() + PATIENCE
        while (answer := cls.ask("GET", path, token=token))[0] != 200:
            if time.monotonic() > end:
                raise AssertionError(f"no right to get {path}: {answer}")
            time.sleep(0.05)  # nobody tells when the authorizer has seen a new binding

    def rules_of(self, token, namespace):
        """{(verb, group, resource, name or None)}, and what else a token may ask for: {(verb, path)}"""
        code, text = self.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
                              {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1",
                               "spec": {"namespace": namespace}}, token)
        self.assertEqual(code, 201, text)
        status = json.loads(text)["status"]
        self.assertFalse(status["incomplete"], status)
        return {*itertools.chain.from_iterable(
            itertools.product(rule["verbs"], rule["apiGroups"], rule["resources"], rule.get("resourceNames", [None]))
            for rule in status["resourceRules"])}, {*itertools.chain.from_iterable(
                itertools.product(rule["verbs"], rule["nonResourceURLs"]) for rule in status["nonResourceRules"])}

    def start_agent(self, token, config=kube.CONFIG, **environment):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        kube.write_kubeconfig(folder + "/kubeconfig", f"https://127.0.0.1:{self.port}", self.folder + "/ca.crt",
                              {"token": token})
        with open(folder + "/agent.yaml", "w", encoding="utf-8") as file:
            file.write(config)
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

    def test_the_manifests_lose_nothing_on_the_way(self):
        for sent, kept in zip(self.manifests, self.taken):
            self.assertEqual(lost(sent, kept), [], f"{sent['kind']} {sent['metadata']['name']}")

    def test_a_pod_of_the_agent_is_taken(self):
        # What the controller makes of a DaemonSet, which checks less of a pod than the server does when one comes.
        manifest, = [one for one in self.manifests if one["kind"] == "DaemonSet"]
        template = manifest["spec"]["template"]
        pod = {"kind": "Pod", "apiVersion": "v1", "spec": {"nodeName": "node-1", **template["spec"]},
               "metadata": {"name": "shunt-agent-1", "namespace": "shunt", **template["metadata"]}}
        self.assertEqual(lost(pod, self.create(pod, "?dryRun=All")), [])

    def test_the_manifests_give_the_rights_that_they_name_and_no_others(self):
        self.create({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {"name": "nobody", "namespace": "shunt"}})
        nobody = self.make_token("nobody")
        for namespace in ("prod", "shunt", "kube-system"):
            resources, paths = self.rules_of(self.token, namespace)
            of_all, paths_of_all = self.rules_of(nobody, namespace)
            self.assertEqual(resources - of_all, {("get", "", "pods", None),
                                                  ("list", "discovery.k8s.io", "endpointslices", None),
                                                  ("watch", "discovery.k8s.io", "endpointslices", None),
                                                  ("list", "", "services", None), ("watch", "", "services", None)})
            self.assertEqual(paths, paths_of_all)
        self.assertEqual(self.ask("GET", self.pod, token=nobody)[0], 403)

    def test_the_server_refuses_what_the_manifests_do_not_name(self):
        self.assertEqual(self.ask("GET", self.pod, token=self.token)[0], 200)
        for method, path in (("GET", "/api/v1/pods"), ("GET", "/api/v1/namespaces/prod/pods"),
                             ("GET", "/api/v1/namespaces/prod/pods?watch=1"), ("GET", self.pod + "/log"),
                             ("POST", self.pod + "/exec?command=id"), ("DELETE", self.pod),
                             ("GET", "/api/v1/namespaces/shunt/configmaps/agent"),
                             ("GET", SLICES + "/web-1"), ("DELETE", SLICES + "/web-1"),
                             ("GET", "/api/v1/namespaces/shunt/secrets"), ("GET", "/api/v1/nodes")):
            with self.subTest(f"{method} {path}"):
                code, text = self.ask(method, path, token=self.token)
                self.assertEqual(code, 403, text)

    def test_a_pod_is_known_by_its_names(self):
        self.start_agent(self.token)
        self.assert_becomes(kube.annotations_of("web-1", self.uid), "EBADMSG")
        self.agent.wait_for(rf"it is .* nginx of pod prod/web-1 \(uid {self.uid}\)")

    def test_another_pod_of_that_name_is_not_it(self):
        self.start_agent(self.token)
        self.assert_becomes(kube.annotations_of("web-1", kube.UID), "ENOENT")
        self.agent.wait_for(rf"warning: .*another one now, with uid {self.uid}")

    def test_a_pod_that_is_not_there(self):
        self.start_agent(self.token)
        self.assert_becomes(kube.annotations_of("web-2", self.uid), "ENOENT")
        self.agent.wait_for(r'warning: .*it answers 404: pods "web-2" not found')

    def test_the_manifests_give_no_right_to_list(self):
        self.start_agent(self.token, NODE_NAME="node-1")
        self.assert_becomes({"io.kubernetes.cri.sandbox-uid": self.uid}, "ENOENT")
        self.agent.wait_for(r"warning: .*it answers 403: pods is forbidden: .*right to list pods")

    def test_who_may_list_finds_a_pod_by_its_uid(self):
        # As rbac.yaml says: "verbs [get, list]".
        for one in copy.deepcopy(self.manifests):
            if one["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"):
                for named in (one["metadata"], one.get("roleRef", {}), *one.get("subjects", [])):
                    named["name"] = "lister"
                for rule in one.get("rules", []):
                    rule["verbs"] = ["get", "list"]
                self.create(one)
        lister = self.make_token("lister")
        self.wait_for_right(lister, "/api/v1/pods")
        self.start_agent(lister, NODE_NAME="node-1")
        self.assert_becomes({"io.kubernetes.cri.sandbox-uid": self.uid}, "EBADMSG")
        self.agent.wait_for(rf"it is .* nginx of pod prod/web-1 \(uid {self.uid}\)")

    def write_slice(self, address, version=None, **conditions):
        """The one of the Service prod/web; where there is one already, over that version."""
        one = {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
               "metadata": {"name": "web-1", "namespace": "prod", "labels": {"kubernetes.io/service-name": "web"}},
               "endpoints": [{"addresses": [address], "conditions": conditions, "zone": "a"}],
               "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}
        if version is None:
            return self.create(one)["metadata"]["resourceVersion"]
        one["metadata"]["resourceVersion"] = version
        code, text = self.ask("PUT", SLICES + "/web-1", one)
        self.assertEqual(code, 200, text)
        return json.loads(text)["metadata"]["resourceVersion"]

    def services(self):
        """{name: what `shunt ctl services` says of it}"""
        told = subprocess.run([ARGS.agent, "ctl", "--socket", self.agent.socket, "services", "--json"],
                              capture_output=True, text=True, check=True).stdout
        return {one["name"]: one for one in json.loads(told)["services"]}

    def wait_for_backends(self, *backends, service="web"):
        """[(address, zone, whether it is a backup)], and no error."""
        end = time.monotonic() + PATIENCE
        while True:
            told = self.services().get(service)
            found = told and [(one["address"], one["zone"], one["backup"]) for one in told["backends"]]
            if found == list(backends) and told["source_error"] == "":
                return
            self.assertLess(time.monotonic(), end, f"{told}\n" + "".join(self.agent.lines))

    def test_a_services_backends_are_its_endpoints(self):
        version = self.write_slice("192.0.2.1", ready=True)
        self.start_agent(self.token, "services:\n- {name: web, address: '10.96.0.10:80', "
                                     "discover: {kubernetes: {service: prod/web, port: http}}}\n",
                         KUBECONFIG=self.folder + "/agent.kubeconfig")
        self.wait_for_backends(("192.0.2.1:8080", "a", False))
        version = self.write_slice("192.0.2.2", version, ready=True)
        self.wait_for_backends(("192.0.2.2:8080", "a", False))
        self.write_slice("192.0.2.2", version, ready=False, serving=True, terminating=True)
        self.wait_for_backends(("192.0.2.2:8080", "a", True))
        self.assertEqual(self.ask("DELETE", SLICES + "/web-1")[0], 200)
        self.wait_for_backends()
        self.assertEqual([line for line in self.agent.lines if "service web:" in line], [])

    def test_every_service_is_one_at_its_cluster_ip(self):
        version = self.write_slice("192.0.2.1", ready=True)
        self.addCleanup(self.ask, "DELETE", SLICES + "/web-1")
        self.wait_for_right(self.token, "/api/v1/services")
        self.start_agent(self.token, "services:\n- {name: cluster, discover: {kubernetes: {services: all}}}\n",
                         KUBECONFIG=self.folder + "/agent.kubeconfig")
        # The server makes default/kubernetes by itself.
        made = self.create({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "prod"},
                            "spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}],
                                     "sessionAffinity": "ClientIP"}})
        self.wait_for_backends(("192.0.2.1:8080", "a", False), service="prod/web:http")
        services = self.services()
        self.assertEqual(services["prod/web:http"]["addresses"], [made["spec"]["clusterIP"] + ":80/tcp"])
        self.assertEqual(services["prod/web:http"]["affinity"], "container")
        self.assertEqual(services["prod/web:admin"]["backends"], [])
        self.assertEqual(services["default/kubernetes:https"]["addresses"], ["10.96.0.1:443/tcp"])
        self.assertEqual(services["cluster"]["source_error"], "")
        self.write_slice("192.0.2.2", version, ready=False, serving=True, terminating=True)
        self.wait_for_backends(("192.0.2.2:8080", "a", True), service="prod/web:http")
        path = PATHS["Service"].format("prod") + "/web"
        made["spec"]["ports"] = [{"name": "http", "port": 8000}]
        self.assertEqual(self.ask("PUT", path, made)[0], 200)
        end = time.monotonic() + PATIENCE
        while self.services()["prod/web:http"]["addresses"] != [made["spec"]["clusterIP"] + ":8000/tcp"]:
            self.assertLess(time.monotonic(), end, "".join(self.agent.lines))
        self.assertNotIn("prod/web:admin", self.services())
        self.assertEqual(self.ask("DELETE", path)[0], 200)
        while "prod/web:http" in self.services():
            self.assertLess(time.monotonic(), end, "".join(self.agent.lines))
        self.assertEqual([line for line in self.agent.lines if "warning" in line and "cluster" in line], [])

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
