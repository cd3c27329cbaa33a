#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Services whose backends are kept by etcd: a real one, that is changed, killed, and asks who one is.

    etcd_source_test.py --agent PROGRAM --runtime runc|crun --as root|user [TEST]
"""

import json
import os
import shutil
import signal
import sys

sys.dont_write_bytecode = True
from service_case import SERVICE, ServiceCase  # noqa: E402  (it leads to those below)
import kube  # noqa: E402
from etcd import Etcd, free_port  # noqa: E402
from runtime_case import main  # noqa: E402

PREFIX = "/services/web/"

class EtcdSource(ServiceCase):
    def start_etcd(self, **options):
        etcd = Etcd(self.folder, **options)
        self.addCleanup(etcd.kill)
        etcd.start()
        return etcd

    def serve(self, *endpoints, **keys):
        """An agent with a service whose backends these endpoints know."""
        spec = json.dumps({"endpoints": endpoints, "prefix": PREFIX.rstrip("/"), **keys})
        self.write(f"services:\n- name: web\n  address: {SERVICE}\n  policy: round-robin\n"
                   f"  discover: {{etcd: {spec}}}\n")
        return self.start_agent("--config", self.config)

    def assert_backends(self, agent, *addresses):
        self.assertEqual([one["address"] for one in self.report(agent)["backends"]], list(addresses))

    def test_a_container_connects_to_what_a_key_says(self):
        servers = self.start_servers(18281, 18282)
        etcd = self.start_etcd()
        etcd.put(PREFIX + "a", servers[0].address)
        agent = self.serve(etcd.url)
        self.assertEqual(self.ports(agent), {"18281"})
        etcd.put(PREFIX + "a", f"{{address: '{servers[1].address}', weight: 2}}")
        self.wait_until(lambda: self.ports(agent) == {"18282"}, "the new backend gets no connections")

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

    def test_a_long_list_is_read_in_pages(self):
        etcd = self.start_etcd()
        addresses = [f"10.0.{i // 250}.{i % 250 + 1}:80" for i in range(2500)]
        etcd.put_many({f"{PREFIX}{i:04}": address for i, address in enumerate(addresses)})
        agent = self.serve(etcd.url)
        self.wait_for_backends(agent, *addresses)
        etcd.delete(f"{PREFIX}1000")
        etcd.put(f"{PREFIX}2500", "10.0.99.1:80")
        self.wait_for_backends(agent, *addresses[:1000], *addresses[1001:], "10.0.99.1:80")
        self.wait_for_health(agent)

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
        self.assert_backends(agent, "10.0.0.1:80")
        self.assertGreaterEqual(self.report(agent)["source_age_s"], 0)
        self.kill_engine(agent)
        self.assert_backends(agent, "10.0.0.1:80")
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
        etcd.log_in()
        etcd.put(PREFIX + "b", "10.0.0.2:80")
        self.wait_for_backends(agent, "10.0.0.1:80", "10.0.0.2:80")
        self.wait_for_health(agent)


if __name__ == "__main__":
    if shutil.which("etcd") is None:
        print("skipped: etcd is not installed (tools/install-packages test)")
        sys.exit(77)
    sys.exit(main())
