#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Services whose backends are kept by etcd: a real one, that is changed, killed, and asks who one is.

    etcd_source_test.py --agent PROGRAM --runtime runc|crun --as root|user [TEST]
"""

import json
import os
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "runtimes"))
sys.path.insert(0, os.path.join(HERE, "..", "support"))
sys.path.insert(0, HERE)
import kube  # noqa: E402  (found by the line above)
from etcd import Etcd, free_port  # noqa: E402
from runtime_case import ARGS, RuntimeCase, main  # noqa: E402
from stage import nginx  # noqa: E402

PREFIX = "/services/web/"
GET = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc 10.96.0.10 80 | tail -n 1"


class EtcdSource(RuntimeCase):
    def setUp(self):
        super().setUp()
        self.config = os.path.join(self.folder, "agent.yaml")

    def start_etcd(self, **options):
        etcd = Etcd(self.folder, **options)
        self.addCleanup(etcd.kill)
        etcd.start()
        return etcd

    def serve(self, *endpoints, **keys):
        """An agent with a service whose backends these endpoints know."""
        spec = json.dumps({"endpoints": endpoints, "prefix": PREFIX.rstrip("/"), **keys})
        with open(self.config, "w", encoding="utf-8") as file:
            file.write("services:\n- name: web\n  address: 10.96.0.10:80\n  policy: round-robin\n"
                       f"  discover: {{etcd: {spec}}}\n")
        return self.start_agent("--config", self.config)

    def report(self, agent):
        result = subprocess.run([ARGS.agent, "ctl", "--socket", agent.socket, "services", "web", "--json"],
                                capture_output=True, text=True, timeout=30, check=True)
        return json.loads(result.stdout)["services"][0]

    def engine_of(self, agent):
        result = subprocess.run([ARGS.agent, "ctl", "--socket", agent.socket, "status", "--json"], capture_output=True,
                                text=True, timeout=30, check=True)
        return json.loads(result.stdout)["engine_pid"]

    def backends(self, agent):
        return [one["address"] for one in self.report(agent)["backends"]]

    def wait_for_backends(self, agent, *addresses):
        self.wait_until(lambda: self.backends(agent) == list(addresses), f"{addresses} do not become the backends")

    def wait_for_error(self, agent, text):
        self.wait_until(lambda: text in self.report(agent)["source_error"], f"nobody says {text!r}")

    def wait_for_health(self, agent):
        self.wait_until(lambda: self.report(agent)["source_error"] == "", "the source stays broken")

    def test_a_container_connects_to_what_a_key_says(self):
        for applet in ("printf", "tail"):
            os.symlink("busybox", os.path.join(self.rootfs, "bin", applet))
        servers = [nginx(self.folder, port) for port in (18281, 18282)]
        for server in servers:
            self.addCleanup(server.kill)
            server.start()
        etcd = self.start_etcd()
        etcd.put(PREFIX + "a", servers[0].address)
        agent = self.serve(etcd.url)
        self.assertEqual(self.ports(agent), {"18281"})
        etcd.put(PREFIX + "a", f"{{address: '{servers[1].address}', weight: 2}}")
        self.wait_until(lambda: self.ports(agent) == {"18282"}, "the new backend gets no connections")

    def ports(self, agent):
        def with_network(config):
            spaces = config["linux"]["namespaces"]
            if not any(space["type"] == "network" for space in spaces):
                spaces.append({"type": "network"})

        self.made = getattr(self, "made", 0) + 1
        name = f"c{self.made}"
        folder = self.bundle(name, agent.socket, f"{GET}; {GET}; {GET}", traps=("connect", "bind"), change=with_network)
        result = self.runtime("run", name, cwd=folder)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr + "".join(agent.lines))
        return set(result.stdout.split())

    def test_what_happens_to_keys_happens_to_backends(self):
        etcd = self.start_etcd()
        etcd.put(PREFIX + "b", "10.0.0.2:80")
        etcd.put(PREFIX + "a", '{"address": "10.0.0.1:80", "weight": 3, "zone": "z"}')
        etcd.put("/services/web2/c", "10.0.0.9:80")
        etcd.put("/services/web", "10.0.0.9:80")
        agent = self.serve(etcd.url)
        self.wait_for_backends(agent, "10.0.0.1:80", "10.0.0.2:80")
        self.assertEqual(self.report(agent)["backends"][0]["weight"], 3)
        etcd.delete(PREFIX + "b")
        self.wait_for_backends(agent, "10.0.0.1:80")
        etcd.put(PREFIX + "c", "10.0.0.3:80", lease=etcd.lease(2))
        self.wait_for_backends(agent, "10.0.0.1:80", "10.0.0.3:80")
        self.wait_for_backends(agent, "10.0.0.1:80")  # the lease has run out
        etcd.delete(PREFIX + "a")
        self.wait_for_backends(agent)
        self.assertEqual(self.report(agent)["source_error"], "")

    def test_a_value_that_is_no_backend_is_told_and_takes_nothing_away(self):
        etcd = self.start_etcd()
        etcd.put(PREFIX + "a", "10.0.0.1:80")
        etcd.put(PREFIX + "b", "10.0.0.2")
        agent = self.serve(etcd.url)
        self.wait_for_backends(agent, "10.0.0.1:80")
        self.wait_for_error(agent, PREFIX + "b")
        etcd.put(PREFIX + "a", "{address")
        etcd.put(PREFIX + "b", "10.0.0.2:80")
        self.wait_for_backends(agent, "10.0.0.1:80", "10.0.0.2:80")
        self.wait_for_error(agent, PREFIX + "a")
        etcd.put(PREFIX + "a", "10.0.0.3:80")
        self.wait_for_backends(agent, "10.0.0.3:80", "10.0.0.2:80")
        self.wait_for_health(agent)

    def test_what_was_found_outlives_etcd_which_is_followed_again(self):
        etcd = self.start_etcd()
        etcd.put(PREFIX + "a", "10.0.0.1:80")
        agent = self.serve(etcd.url)
        self.wait_for_backends(agent, "10.0.0.1:80")
        etcd.kill()
        self.wait_for_error(agent, etcd.url)
        self.assertEqual(self.backends(agent), ["10.0.0.1:80"])
        self.assertGreaterEqual(self.report(agent)["source_age_s"], 0)
        engine = self.engine_of(agent)
        os.kill(engine, signal.SIGKILL)
        self.wait_until(lambda: self.engine_of(agent) != engine, "there is no new engine")
        self.assertEqual(self.backends(agent), ["10.0.0.1:80"])
        etcd.start()
        self.wait_for_health(agent)
        etcd.put(PREFIX + "b", "10.0.0.2:80")
        self.wait_for_backends(agent, "10.0.0.1:80", "10.0.0.2:80")

    def test_history_that_etcd_has_forgotten_is_read_as_a_whole(self):
        etcd = self.start_etcd()
        etcd.put(PREFIX + "a", "10.0.0.1:80")
        etcd.put(PREFIX + "b", "10.0.0.2:80")
        agent = self.serve(etcd.url)
        self.wait_for_backends(agent, "10.0.0.1:80", "10.0.0.2:80")
        engine = self.engine_of(agent)
        os.kill(engine, signal.SIGSTOP)
        try:
            etcd.delete(PREFIX + "b")
            last = etcd.put(PREFIX + "a", "10.0.0.3:80")
            etcd.ask("kv/compaction", revision=str(last))
            etcd.kill()
            etcd.start()
        finally:
            os.kill(engine, signal.SIGCONT)
        self.wait_for_backends(agent, "10.0.0.3:80")
        etcd.put(PREFIX + "d", "10.0.0.4:80")
        self.wait_for_backends(agent, "10.0.0.3:80", "10.0.0.4:80")

    def test_another_endpoint_is_asked_when_one_is_away(self):
        etcd = self.start_etcd()
        etcd.put(PREFIX + "a", "10.0.0.1:80")
        agent = self.serve(f"http://127.0.0.1:{free_port()}", etcd.url)
        self.wait_for_backends(agent, "10.0.0.1:80")
        self.wait_for_health(agent)

    def test_who_asks_is_asked_for_a_password_and_asks_for_a_certificate(self):
        kube.make_authority(self.folder, "ca")
        kube.make_authority(self.folder, "other")
        kube.sign(self.folder, "ca", "server", "IP:127.0.0.1")
        etcd = self.start_etcd(certificate="server")
        etcd.put(PREFIX + "a", "10.0.0.1:80")
        etcd.enable_auth("reader", "the word", PREFIX)
        password, authority = (os.path.join(self.folder, name) for name in ("password", "authority"))
        shutil.copy(os.path.join(self.folder, "other.crt"), authority)
        with open(password, "w", encoding="utf-8") as file:
            file.write("another word\n")
        agent = self.serve(etcd.url, ca=authority, user="reader", **{"password-file": password})
        self.wait_for_error(agent, "certificate")
        shutil.copy(os.path.join(self.folder, "ca.crt"), authority)
        self.wait_for_error(agent, "authentication failed")
        with open(password, "w", encoding="utf-8") as file:
            file.write("the word\n")
        self.wait_for_backends(agent, "10.0.0.1:80")
        self.wait_for_health(agent)
        etcd.kill()  # with the tokens that it has given
        etcd.start()
        etcd.token = etcd.ask("auth/authenticate", name="root", password="root")["token"]
        etcd.put(PREFIX + "b", "10.0.0.2:80")
        self.wait_for_backends(agent, "10.0.0.1:80", "10.0.0.2:80")
        self.wait_for_health(agent)


if __name__ == "__main__":
    if shutil.which("etcd") is None:
        print("skipped: etcd is not installed (tools/install-packages test)")
        sys.exit(77)
    sys.exit(main())
