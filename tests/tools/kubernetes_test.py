#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent asks the API server about pods: a server that answers as the real one does, and ones that do otherwise.

    kubernetes_test.py SHUNT root|user

What becomes of a container shows in its own call (tests/support/kube.py). Whatever the server does, each container gets
a verdict in bounded time, and others are served meanwhile.
"""

import collections
import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
for place in ("../support", "../runtimes"):
    sys.path.insert(0, os.path.join(HERE, place))
import kube  # noqa: E402  (found by the lines above)
from runtime_case import ARGS, PATIENCE, Agent  # noqa: E402

ARENA = os.path.join(HERE, "../support/arena")
SHARE = 64  # tools/agent_role.cc: kMostUndecidedOfUser
LONGEST = 6  # seconds: PodDirectory::kLongest


def pod(name="web-1", namespace="prod", uid=kube.UID, labels=None, **more):
    return {"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace, "uid": uid, "labels": labels or {"app": "web"},
                         "annotations": {"tier": "front"}, "managedFields": [{"manager": "kubelet"}]},
            "spec": {"nodeName": "node-1", "containers": [{"name": "nginx", "image": "nginx:1"}]},
            "status": {"phase": "Pending"}, **more}


def refusal(code, message):
    return code, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                  "code": code}


class Server:
    """`behave(request, number)` answers each request: (code, JSON or bytes[, headers]). None: not at all."""

    def __init__(self, folder, certificate="server", client_authority=None):
        self.pods = {("prod", "web-1"): pod()}
        self.requests = []
        self.behave = self.as_the_real_one
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                server.requests.append((self.path, self.headers.get("Authorization")))
                number = len(server.requests)
                server.arrived.release()
                answer = server.behave(self, number)
                if answer is None:
                    server.open.wait()  # silence
                    self.close_connection = True
                    return
                code, body, *headers = answer
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                for key, value in dict(*headers).items():
                    self.send_header(key, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass  # who asked has had enough

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(folder, certificate + ".crt"), os.path.join(folder, certificate + ".key"))
        if client_authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(os.path.join(folder, client_authority + ".crt"))
        self.http = Threads(("127.0.0.1", 0), Handler)
        # The handshake is the handler's thread's.
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.http.server_port
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def as_the_real_one(self, request, _):
        url = urllib.parse.urlsplit(request.path)
        parts = url.path.strip("/").split("/")
        if parts == ["api", "v1", "pods"]:
            wanted = urllib.parse.parse_qs(url.query)["fieldSelector"][0]
            of_node = [one for one in self.pods.values() if "spec.nodeName=" + one["spec"]["nodeName"] == wanted]
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"},
                         "items": [{k: v for k, v in one.items() if k not in ("kind", "apiVersion")}
                                   for one in of_node]}
        if parts[:3] != ["api", "v1", "namespaces"] or parts[4] != "pods":
            return refusal(404, "the server could not find the requested resource")
        found = self.pods.get((parts[3], parts[5]))
        return (200, found) if found else refusal(404, f'pods "{parts[5]}" not found')

    def stop(self):
        self.open.set()
        self.http.shutdown()
        self.http.server_close()


class KubernetesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.certificates = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.certificates)
        for authority in ("ca", "stranger"):
            kube.make_authority(cls.certificates, authority)
        kube.sign(cls.certificates, "ca", "server", "IP:127.0.0.1", "DNS:localhost")
        kube.sign(cls.certificates, "ca", "elsewhere", "IP:192.0.2.1")
        kube.sign(cls.certificates, "stranger", "strange", "IP:127.0.0.1")
        kube.sign(cls.certificates, "ca", "agent")

    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.tag = os.urandom(4).hex()
        self.server = None
        self.token = os.path.join(self.folder, "token")
        self.write_token("first")
        self.config = os.path.join(self.folder, "agent.yaml")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(kube.CONFIG)
        self.agent = None

    def write_token(self, token):
        with open(self.token + ".new", "w", encoding="ascii") as file:
            file.write(token + "\n")
        os.rename(self.token + ".new", self.token)

    def start(self, *options, user=None, host="127.0.0.1", environment=None, **server):
        self.server = Server(self.certificates, **server)
        self.addCleanup(self.server.stop)
        path = os.path.join(self.folder, "kubeconfig")
        kube.write_kubeconfig(path, f"https://{host}:{self.server.port}", os.path.join(self.certificates, "ca.crt"),
                              user or {"tokenFile": "token"})
        self.start_agent("--kubeconfig", path, *options, environment=environment)

    def start_agent(self, *options, environment=None):
        self.agent = Agent(self.folder, self.tag, "--verbose", "--resolver", "kubernetes", "--config", self.config,
                           *options, environment=environment)
        self.addCleanup(self.agent.stop)
        self.assertEqual(self.agent.ready, b"\x01", "".join(self.agent.lines))

    def container(self, name="c", annotations=None, group=None):
        container = kube.Container(self.agent.socket, f"{name}-{self.tag}",
                                   kube.annotations_of("web-1") if annotations is None else annotations, group)
        self.addCleanup(container.process.wait)
        self.addCleanup(container.process.kill)
        return container

    def assert_becomes(self, container, wanted):
        self.assertEqual(container.answer(), wanted, "".join(self.agent.lines))
        container.end()

    def engine(self):
        """The process that serves; waits until there is one."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            status = subprocess.run([ARGS.agent, "ctl", "--socket", self.agent.socket, "status", "--json"],
                                    capture_output=True, text=True, check=False)
            if status.returncode == 0:
                return json.loads(status.stdout)["engine_pid"]
        self.fail("no engine answers")

    # ---- what the server tells

    def test_labels_and_annotations_of_the_pod_select(self):
        self.start()
        self.assert_becomes(self.container(), "EBADMSG")
        self.assertEqual(self.server.requests, [("/api/v1/namespaces/prod/pods/web-1", "Bearer first")])
        self.agent.wait_for(r"it is .* nginx of pod prod/web-1 \(uid 8d6a3ee2-")
        self.agent.wait_for(r"rule by-label holds for it")

    def test_a_pod_with_other_labels_is_not_selected(self):
        self.start()
        self.server.pods["prod", "web-1"] = pod(labels={"app": "db"})
        self.assert_becomes(self.container(), "ENOENT")

    def test_who_is_in_no_pod_is_not_asked_about(self):
        self.start()
        self.assert_becomes(self.container(annotations={}), "ENOENT")
        self.assertEqual(self.server.requests, [])

    def test_a_pod_is_asked_about_once_while_containers_of_it_live(self):
        self.start()
        self.server.behave = lambda request, number: (self.server.open.wait(),
                                                      self.server.as_the_real_one(request, number))[1]
        together = [self.container(f"c{number}") for number in range(3)]
        for _ in range(3):
            self.agent.wait_for(r": the API server is asked about pod prod/web-1 ")
        self.server.open.set()
        for container in together:
            self.assertEqual(container.answer(), "EBADMSG")
        later = self.container("later")
        self.assertEqual(later.answer(), "EBADMSG")
        self.assertEqual(len(self.server.requests), 1)
        for container in (*together, later):
            container.end()
            self.agent.wait_for(r": ended \(")
        self.assert_becomes(self.container("again"), "EBADMSG")
        self.assertEqual(len(self.server.requests), 2)

    def test_wishes_for_the_network_are_read_from_the_pods_annotations(self):
        self.start()
        self.server.pods["prod", "web-1"]["metadata"]["annotations"]["shunt/publish"] = "8080:80"
        self.assert_becomes(self.container(), "EBADMSG")
        self.agent.wait_for(r"serving it .*published ports: 8080:80\)")

    def test_the_server_has_a_name_and_asks_for_a_certificate(self):
        self.start(host="localhost", client_authority="ca",
                   user={"client-certificate": os.path.join(self.certificates, "agent.crt"),
                         "client-key": os.path.join(self.certificates, "agent.key")})
        self.assert_becomes(self.container(), "EBADMSG")
        self.assertEqual(self.server.requests[0][1], None)

    def make_group(self):
        """A control group as the kubelet makes them, or None."""
        container_id = os.urandom(32).hex()
        for tree in ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
            if not os.path.exists(os.path.join(tree, "cgroup.procs")):
                continue
            top = os.path.join(tree, f"shunt-kube-{self.tag}")
            path = os.path.join(top, f"pod{kube.UID}", container_id)
            try:
                os.makedirs(path)
            except OSError:
                continue
            for folder in (top, os.path.dirname(path), path):
                self.addCleanup(os.rmdir, folder)
            return path
        return None

    def test_a_pod_is_found_by_the_uid_that_its_control_group_tells(self):
        group = self.make_group()
        if group is None:
            self.skipTest("no control group can be made here")
        self.start(environment={"NODE_NAME": "node-1"})
        self.server.pods["other", "a"] = pod("a", "other", uid="00000000-6d3b-4a3e-9b49-2f1c1f3a9b10")
        container = self.container(annotations={}, group=group)
        self.assert_becomes(container, "EBADMSG")
        self.assertEqual(self.server.requests[0][0],
                         "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0")
        self.agent.wait_for(r"it is .* nginx of pod prod/web-1 \(uid 8d6a3ee2-")

    def test_without_the_nodes_name_a_uid_is_not_asked_about(self):
        group = self.make_group()
        if group is None:
            self.skipTest("no control group can be made here")
        self.start(environment={"NODE_NAME": ""})
        self.assert_becomes(self.container(annotations={}, group=group), "ENOENT")
        self.agent.wait_for(r"warning: container c.* with uid 8d6a3ee2-.* set NODE_NAME")
        self.assertEqual(self.server.requests, [])

    def test_in_a_pod_the_service_account_counts(self):
        if os.getuid() != 0:
            self.skipTest("/var/run/secrets can be made by root only")
        folder = "/var/run/secrets/kubernetes.io/serviceaccount"
        os.makedirs(folder)
        self.addCleanup(shutil.rmtree, "/var/run/secrets")
        shutil.copy(os.path.join(self.certificates, "ca.crt"), folder)
        shutil.copy(self.token, folder)
        self.server = Server(self.certificates)
        self.addCleanup(self.server.stop)
        self.start_agent(environment={"KUBERNETES_SERVICE_HOST": "127.0.0.1",
                                      "KUBERNETES_SERVICE_PORT": str(self.server.port)})
        self.assert_becomes(self.container(), "EBADMSG")
        self.assertEqual(self.server.requests[0][1], "Bearer first")

    # ---- what goes wrong, and is over soon

    def test_a_token_that_has_been_exchanged_is_read_anew(self):
        self.start()

        def behave(request, number):
            if request.headers["Authorization"] == "Bearer second":
                return self.server.as_the_real_one(request, number)
            self.write_token("second")
            return refusal(401, "Unauthorized")
        self.server.behave = behave
        self.assert_becomes(self.container(), "EBADMSG")
        self.assertEqual([token for _, token in self.server.requests], ["Bearer first", "Bearer second"])

    def test_an_overloaded_server_is_asked_again(self):
        self.start()
        answers = collections.deque([(*refusal(429, "too many"), {"Retry-After": "1"}), refusal(500, "etcd"),
                                     refusal(503, "starting")])
        self.server.behave = lambda request, number: (answers.popleft() if answers else
                                                      self.server.as_the_real_one(request, number))
        began = time.monotonic()
        self.assert_becomes(self.container(), "EBADMSG")
        self.assertGreater(time.monotonic() - began, 1)  # as it has asked for
        self.assertEqual(len(self.server.requests), 4)

    # ---- what goes wrong for good

    def assert_told_and_served_all_the_same(self, why, requests=1):
        self.assert_becomes(self.container(), "ENOENT")
        self.agent.wait_for(rf"warning: container c: the API server https://127\.0\.0\.1:{self.server.port} tells "
                            rf"nothing of its pod prod/web-1 .*: .*{why}.*; what the runtime tells decides")
        self.agent.wait_for(r"container c: serving it ")
        self.assertEqual(len(self.server.requests), requests)
        # The next one is asked about as if nothing had been.
        self.server.behave = self.server.as_the_real_one

    def test_a_pod_that_is_not_there(self):
        self.start()
        self.server.pods.clear()
        self.assert_told_and_served_all_the_same(r'it answers 404: pods "web-1" not found; has it been deleted')
        self.server.pods["prod", "web-1"] = pod()
        self.assert_becomes(self.container("next"), "EBADMSG")

    def test_another_pod_of_the_same_name(self):
        self.start()
        self.server.pods["prod", "web-1"] = pod(uid="00000000-6d3b-4a3e-9b49-2f1c1f3a9b10")
        self.assert_told_and_served_all_the_same("another one now, with uid 00000000-")

    def test_a_name_beside_the_uid_of_another_pod_that_is_known(self):
        self.start()
        first = self.container()
        self.assertEqual(first.answer(), "EBADMSG")
        self.server.pods["prod", "web-2"] = pod("web-2", uid="11111111-6d3b-4a3e-9b49-2f1c1f3a9b10")
        # Its pod would select the same rule; but who lies about one of the two is told nothing.
        self.assert_becomes(self.container("liar", kube.annotations_of("web-2", kube.UID)), "ENOENT")
        self.agent.wait_for(r"warning: container liar: .*another one now, with uid 11111111-")
        first.end()

    def test_a_right_that_is_missing(self):
        self.start()
        self.server.behave = lambda *_: refusal(403, "pods is forbidden: \x1b[31mred")
        self.assert_told_and_served_all_the_same(r"403: pods is forbidden: .x1b\[31mred; give .* right to get pods")
        self.assert_becomes(self.container("next"), "EBADMSG")

    def test_garbage(self):
        self.start()
        for body, why in ((b"<html>hello</html>", "no JSON object"), (b'{"kind":"Pod"}', "without uid"), (b"", "no JSON"),
                          (b"[" * 100_000, "no JSON object"), (b'{"kind":"Node"}', "neither a pod nor")):
            self.server.requests.clear()
            self.server.behave = lambda *_, body=body: (200, body)
            self.assert_told_and_served_all_the_same(why)
        self.assert_becomes(self.container("next"), "EBADMSG")

    def test_an_answer_that_is_too_long(self):
        self.start()
        self.server.behave = lambda *_: (200, b" " * (5 << 20))
        self.assert_told_and_served_all_the_same("more than 4194304 bytes")
        self.assert_becomes(self.container("next"), "EBADMSG")

    def test_a_certificate_of_somebody_else(self):
        self.start(certificate="strange")
        self.assert_told_and_served_all_the_same("certificate.*certificate-authority", requests=0)

    def test_a_certificate_for_another_place(self):
        self.start(certificate="elsewhere")
        self.assert_told_and_served_all_the_same("127.0.0.1.*certificate-authority", requests=0)

    def test_silence_ends_in_time_and_others_are_served_meanwhile(self):
        self.start()
        self.server.behave = lambda *_: None
        began = time.monotonic()
        waiting = self.container("waiting")
        self.server.arrived.acquire(timeout=PATIENCE)
        self.assert_becomes(self.container("beside", annotations={}), "ENOENT")
        other = pod("web-2", uid="11111111-6d3b-4a3e-9b49-2f1c1f3a9b10")
        self.server.pods["prod", "web-2"] = other
        self.server.behave = lambda request, number: (
            self.server.as_the_real_one(request, number) if request.path.endswith("web-2") else None)
        self.assert_becomes(self.container("second", kube.annotations_of("web-2", other["metadata"]["uid"])), "EBADMSG")
        self.assertFalse(waiting.has_answer(), "the server has said nothing yet")
        self.assert_becomes(waiting, "ENOENT")
        self.assertLess(time.monotonic() - began, LONGEST + 2)
        self.agent.wait_for(r"warning: container waiting: .*no answer within 5 s .*what the runtime tells decides")

    def test_one_user_keeps_nobody_from_being_asked_about(self):
        if os.geteuid() != 0:
            self.skipTest("takes root: runtimes of two users connect")
        os.chmod(self.folder, 0o755)
        self.start("--allow-uid", str(kube.CROWDED))
        self.server.behave = lambda request, number: (None if request.path.endswith("web-1") else
                                                      self.server.as_the_real_one(request, number))
        crowd = kube.Crowd(self.agent.socket, self.tag, SHARE + 8)
        self.addCleanup(crowd.end)
        self.server.arrived.acquire(timeout=PATIENCE)
        for _ in range(8):
            self.agent.wait_for(rf"warning: container .*: {SHARE} containers of user {kube.CROWDED} wait for it; what "
                                r"the runtime tells decides")
        other = pod("web-2", uid="11111111-6d3b-4a3e-9b49-2f1c1f3a9b10")
        self.server.pods["prod", "web-2"] = other
        self.assert_becomes(self.container("other", kube.annotations_of("web-2", other["metadata"]["uid"])), "EBADMSG")

    def test_nobody_listens_there(self):
        self.start()
        self.server.stop()
        began = time.monotonic()
        self.assert_becomes(self.container(), "ENOENT")
        self.assertLess(time.monotonic() - began, LONGEST + 2)
        self.agent.wait_for(r"warning: container c: .*no answer within 5 s .*(refused|connect)")

    def test_strict_mode_refuses_whom_the_server_does_not_tell_about(self):
        self.start("--strict")
        self.server.pods.clear()
        self.assert_becomes(self.container(), "EPERM")
        self.agent.wait_for(r"warning: container c: .*404.*; strict mode refuses it")
        self.server.pods["prod", "web-1"] = pod()
        self.assert_becomes(self.container("next"), "EBADMSG")
        self.assert_becomes(self.container("beside", annotations={}), "ENOENT")

    # ---- engines that end while a container waits

    def wait_with_a_container(self):
        """One for which the server has been asked, and has not answered."""
        self.start("--strict")  # what is forgotten would be refused
        self.server.behave = lambda request, number: (None if number == 1 else
                                                      self.server.as_the_real_one(request, number))
        container = self.container()
        self.server.arrived.acquire(timeout=PATIENCE)
        return container

    def test_an_engine_that_dies_leaves_it_to_the_next_one(self):
        container = self.wait_with_a_container()
        os.kill(self.engine(), signal.SIGKILL)
        self.assert_becomes(container, "EBADMSG")
        self.assertEqual(len(self.server.requests), 2)
        self.agent.wait_for(r"container c: taken over, undecided")
        self.agent.wait_for(r"container c: ended \(0 listeners left, of 0 containers\)")

    def test_an_engine_that_cannot_ask_decides_by_what_is_known_for_good(self):
        container = self.wait_with_a_container()
        kubeconfig = os.path.join(self.folder, "kubeconfig")
        os.rename(kubeconfig, kubeconfig + ".away")
        os.kill(self.engine(), signal.SIGKILL)
        self.assertEqual(container.answer(), "EPERM")  # strict
        self.agent.wait_for(r"warning: container c: no API server can be asked about its pod any more")
        os.rename(kubeconfig + ".away", kubeconfig)
        os.kill(self.engine(), signal.SIGKILL)
        self.agent.wait_for(r"container c: taken over\n")
        container.end()
        self.agent.wait_for(r"container c: ended \(0 listeners left, of 0 containers\)")
        self.assert_becomes(self.container("next"), "EBADMSG")

    def test_an_upgrade_asks_again(self):
        container = self.wait_with_a_container()
        subprocess.run([ARGS.agent, "ctl", "--socket", self.agent.socket, "upgrade"], check=True, timeout=PATIENCE)
        self.assert_becomes(container, "EBADMSG")
        self.agent.wait_for(r"container c: ended \(0 listeners left, of 0 containers\)")
        self.assert_becomes(self.container("next"), "EBADMSG")

    def test_who_has_ended_meanwhile_is_forgotten(self):
        container = self.wait_with_a_container()
        container.process.kill()
        container.process.wait()
        self.agent.wait_for(r"container c: ended \(0 listeners left, of 0 containers\)")
        self.assert_becomes(self.container("next"), "EBADMSG")

    # ---- how it is started

    def test_what_is_wrong_with_a_kubeconfig_is_told_at_the_start(self):
        path = os.path.join(self.folder, "kubeconfig")
        kube.write_kubeconfig(path, "https://127.0.0.1:1", os.path.join(self.certificates, "ca.crt"),
                              {"exec": {"command": "aws"}})
        for arguments, why in ((["--kubeconfig", path], "exec: programs are not run"),
                               (["--kubeconfig", self.folder + "/none"], "open .*/none: No such file")):
            result = subprocess.run([ARGS.agent, "agent", "--socket", self.folder + "/s", "--resolver", "kubernetes",
                                     *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertEqual(result.returncode, 2)
            self.assertRegex(result.stderr, r"\Ashunt agent: .*" + why)

    def test_without_a_server_nothing_is_waited_for(self):
        self.start_agent(environment={"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": ""})
        self.agent.wait_for("no API server is known")
        self.assert_becomes(self.container(), "ENOENT")


def run():
    ARGS.agent, who = os.path.abspath(sys.argv[1]), sys.argv[2]
    if shutil.which("openssl") is None:
        print("skipped: openssl is not installed")
        return kube.SKIP
    if "--inside" not in sys.argv:
        user = ["--user"] if who == "user" else []
        return subprocess.run([ARENA, *user, "--", sys.executable, *sys.argv, "--inside"], check=False).returncode
    if who == "root":  # the service account's folder goes with the arena
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], check=True)
    rest = [word for word in sys.argv[3:] if word != "--inside"]
    return 0 if unittest.main(argv=[sys.argv[0], "-v", *rest], exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(run())
