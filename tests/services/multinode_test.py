#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Containers of several machines that reach each other by their own addresses, by what a real etcd knows of them.

    multinode_test.py --agent PROGRAM --runtime runc|crun --as root|user [TEST]

The other machine is nginx on the arena's host, which answers with its port.
"""

import json
import os
import shutil
import signal
import sys

sys.dont_write_bytecode = True
from service_case import ServiceCase, with_network  # noqa: E402  (it leads to those below)
import kube  # noqa: E402
from etcd import Etcd  # noqa: E402
from runtime_case import ARGS, main  # noqa: E402
from stage import HOST  # noqa: E402

PREFIX = "bypass4netns/multinode/"


class MultinodeCase(ServiceCase):
    def setUp(self):
        super().setUp()
        self.etcd = Etcd(self.folder)
        self.addCleanup(self.etcd.kill)
        self.etcd.start()

    def serve(self, *options, more="", **keys):
        """An agent that follows etcd; `keys` are those of multinode:, `more` is the rest of its configuration."""
        spec = json.dumps({"etcd": {"endpoints": [self.etcd.url]}, **keys})
        self.write(f"multinode: {spec}\n{more}")
        return self.start_agent("--config", self.config, *options)

    def ways(self, agent):
        """Where connects go, by the address that a key names."""
        return {service["name"]: service["backends"][0]["address"]
                for service in json.loads(self.ctl(agent, "services", "--json"))["services"]
                if service["name"] != "multinode"}

    def source_error(self, agent):
        return self.report(agent, "multinode")["source_error"]

    def wait_for_ways(self, agent, expected):
        self.wait_until(lambda: self.ways(agent) == expected, f"connects do not go to {expected}")

    def answer(self, agent, host, port):
        """What a new container gets from there; "": nothing within a second."""
        command = rf"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 1 {host} {port} | tail -n 1; true"
        return self.in_container(agent, command).strip()


class Reading(MultinodeCase):
    def test_a_container_reaches_one_of_another_machine_by_its_own_address(self):
        servers = self.start_servers(18381, 18382)
        self.etcd.put(PREFIX + "10.88.0.5:80", servers[0].address)
        agent = self.serve()
        self.wait_until(lambda: self.answer(agent, "10.88.0.5", 80) == "18381", "the key leads nowhere")
        self.assertEqual(self.answer(agent, "10.88.0.6", 80), "", "of which nobody has said anything")
        self.etcd.put(PREFIX + "10.88.0.5:80", servers[1].address)
        self.wait_until(lambda: self.answer(agent, "10.88.0.5", 80) == "18382", "the old way stays in force")
        self.etcd.delete(PREFIX + "10.88.0.5:80")
        self.wait_for_ways(agent, {})
        self.wait_until(lambda: self.answer(agent, "10.88.0.5", 80) == "", "the way does not go with its key")

    def test_a_key_lasts_as_long_as_its_lease(self):
        agent = self.serve()
        self.etcd.put(PREFIX + "[fd00::5]:80", "[2001:db8::1]:8080", lease=self.etcd.lease(2))
        self.wait_for_ways(agent, {"[fd00::5]:80": "[2001:db8::1]:8080"})
        self.wait_for_ways(agent, {})

    def test_no_key_takes_what_is_not_meant_for_keys(self):
        self.etcd.put(PREFIX + "10.96.0.10:80", "192.168.7.9:1")
        self.etcd.put(PREFIX + "192.0.2.1:443", "192.168.7.9:2")
        self.etcd.put(PREFIX + "10.88.0.5:80", "192.168.7.9:3")
        self.etcd.put("bypass4netns/multinode2/10.88.0.6:80", "192.168.7.9:4")
        agent = self.serve(more="services: [{name: web, address: 10.96.0.10:80, backends: ['192.168.7.1:8080']}]\n")
        self.wait_for_ways(agent, {"web": "192.168.7.1:8080", "10.88.0.5:80": "192.168.7.9:3"})
        agent.wait_for(r"10\.96\.0\.10:80.* a service that is configured has the address")
        agent.wait_for(r"192\.0\.2\.1:443.* in none of the networks")

    def test_a_key_that_is_none_is_told_and_takes_nothing_away(self):
        self.etcd.put(PREFIX + "10.88.0.5:80", "192.168.7.9:1")
        self.etcd.put(PREFIX + "10.88.0.6", "192.168.7.9:2")
        agent = self.serve()
        self.wait_for_ways(agent, {"10.88.0.5:80": "192.168.7.9:1"})
        agent.wait_for(r"multinode.*10\.88\.0\.6: its name should be")
        self.etcd.put(PREFIX + "10.88.0.5:80", "nowhere")
        self.etcd.delete(PREFIX + "10.88.0.6")
        agent.wait_for(r"multinode.*10\.88\.0\.5:80: its value")
        self.assertEqual(self.ways(agent), {"10.88.0.5:80": "192.168.7.9:1"})

    def test_what_was_found_outlives_etcd_and_the_engine(self):
        self.etcd.put(PREFIX + "10.88.0.5:80", "192.168.7.9:1")
        agent = self.serve()
        self.wait_for_ways(agent, {"10.88.0.5:80": "192.168.7.9:1"})
        self.etcd.kill()
        self.wait_until(lambda: self.etcd.url in self.source_error(agent), "nobody says that etcd is away")
        self.kill_engine(agent)
        self.assertEqual(self.ways(agent), {"10.88.0.5:80": "192.168.7.9:1"})
        self.etcd.start()
        self.etcd.put(PREFIX + "10.88.0.6:80", "192.168.7.9:2")
        self.wait_for_ways(agent, {"10.88.0.5:80": "192.168.7.9:1", "10.88.0.6:80": "192.168.7.9:2"})
        self.assertEqual(self.source_error(agent), "")


class Announcing(MultinodeCase):
    """A container with the address 10.88.0.5, which another one would call so."""

    def announce(self, *options, **keys):
        return self.serve(*options, **{"register": True, "host-address": HOST, **keys})

    def start_server(self, name, agent, ports, program="nc -ll -p 80 -e echo served", address="10.88.0.5/16"):
        """Without a bind, a user's container is never looked at."""
        def with_device(config):
            with_network(config)
            script = ("ip link set lo up; ip link add eth7 type veth peer name eth8 && ip link set eth7 up; "
                      f"ip link set eth8 up; ip addr add {address} dev eth7; ip addr add fd88::5/64 dev eth7 nodad")
            config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script],
                                                    "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]}
            for kind in ("bounding", "effective", "permitted"):
                config["process"]["capabilities"][kind].append("CAP_NET_ADMIN")
        self.start_container(name, agent, program, metadata=f"shunt.publish={ports}", change=with_device)

    def announced(self):
        return {key: pair["value"] for key, pair in self.etcd.keys(PREFIX).items()}

    def wait_for_announced(self, expected):
        self.wait_until(lambda: self.announced() == expected, f"it is not {expected} that is announced")

    BOTH = {"10.88.0.5:80": f"{HOST}:18480", "[fd88::5]:80": f"{HOST}:18480"}

    def test_published_ports_are_announced_as_long_as_their_container_lives(self):
        agent = self.announce()
        self.start_server("server", agent, "18480:80,127.0.0.1:18443:443")
        self.wait_for_announced(self.BOTH)
        self.assertTrue(all(int(pair.get("lease", 0)) for pair in self.etcd.keys(PREFIX).values()))
        self.assert_served(self.execute("server"))
        self.assertEqual(self.announced(), self.BOTH, "what is executed in it ends, and it lives")
        self.delete("server")
        self.wait_for_announced({})

    def test_a_container_reaches_the_other_one(self):
        if ARGS.who == "user":
            self.skipTest("to publish takes the eBPF lock, which an ordinary user has from a lock server only")
        agent = self.announce()
        self.start_server("server", agent, "18480:80")
        self.wait_until(lambda: self.answer(agent, "10.88.0.5", 80) == "served", "nobody gets there")

    def test_all_is_announced_anew_when_the_lease_is_lost(self):
        agent = self.announce()
        self.start_server("server", agent, "18480:80")
        self.wait_for_announced(self.BOTH)
        lease = self.etcd.keys(PREFIX)["10.88.0.5:80"]["lease"]
        self.etcd.ask("lease/revoke", ID=lease)
        self.assertEqual(self.announced(), {})
        self.wait_for_announced(self.BOTH)

    def test_a_new_engine_goes_on_without_a_gap_and_with_the_addresses_of_the_start(self):
        agent = self.serve("--register", "etcd", **{"host-address": HOST})
        self.start_server("server", agent, "18480:80", "ip addr add 10.88.0.99/16 dev eth7 && mkdir /tmp/more; sleep 1000")
        self.wait_until(lambda: os.path.exists(os.path.join(self.rootfs, "tmp", "more")), "it gets no more addresses")
        self.wait_for_announced(self.BOTH)
        before = self.etcd.keys(PREFIX)
        self.kill_engine(agent)
        self.wait_until(lambda: all(pair["lease"] != before[key]["lease"]
                                    for key, pair in self.etcd.keys(PREFIX).items()), "they stay under the old lease")
        after = self.etcd.keys(PREFIX)
        self.assertEqual(self.announced(), self.BOTH)
        for key, pair in after.items():
            self.assertEqual(pair["create_revision"], before[key]["create_revision"], "it was away meanwhile")
        self.execute("server")
        self.assertEqual(self.announced(), self.BOTH, "what is executed later has more addresses")
        self.delete("server")
        self.wait_for_announced({})

    def test_an_upgrade_goes_on_without_a_gap(self):
        agent = self.announce()
        self.start_server("server", agent, "18480:80")
        self.wait_for_announced(self.BOTH)
        before = self.etcd.keys(PREFIX)
        self.replace_engine(agent, lambda _: self.ctl(agent, "upgrade"))
        self.start_server("second", agent, "18481:80", address="10.88.0.6/16")
        self.wait_until(lambda: "10.88.0.6:80" in self.announced(), "the new engine announces nothing")
        for key, pair in before.items():
            now = self.etcd.keys(PREFIX)[key]
            self.assertEqual((now["value"], now["create_revision"]), (pair["value"], pair["create_revision"]), key)
        self.delete("server")
        self.wait_until(lambda: "10.88.0.5:80" not in self.announced(), "the new engine takes nothing back")

    def test_an_etcd_that_asks_for_a_password_and_speaks_tls(self):
        self.etcd.kill()
        kube.make_authority(self.folder, "ca")
        kube.sign(self.folder, "ca", "server", "IP:127.0.0.1")
        self.etcd = Etcd(self.folder, certificate="server")
        self.addCleanup(self.etcd.kill)
        self.etcd.start()
        self.etcd.enable_auth("node", "the word", PREFIX, right="READWRITE")
        password = os.path.join(self.folder, "password")
        with open(password, "w", encoding="utf-8") as file:
            file.write("the word\n")
        spec = {"endpoints": [self.etcd.url], "ca": os.path.join(self.folder, "ca.crt"), "user": "node",
                "password-file": password}
        agent = self.announce(etcd=spec)
        self.start_server("server", agent, "18480:80")
        self.wait_for_announced(self.BOTH)
        self.etcd.kill()  # with the tokens that it has given
        self.etcd.start()
        self.etcd.log_in()
        self.delete("server")
        self.wait_for_announced({})

    def test_an_agent_that_ends_takes_all_back_and_one_that_is_killed_leaves_it_to_the_lease(self):
        agent = self.announce()
        self.start_server("server", agent, "18480:80")
        self.wait_for_announced(self.BOTH)
        self.assertEqual(agent.stop(), 0)
        self.assertEqual(self.announced(), {})
        self.delete("server")
        agent = self.announce()
        self.start_server("second", agent, "18480:80")
        self.wait_for_announced(self.BOTH)
        agent.stop(signal.SIGKILL)
        self.wait_for_announced({})

    def test_an_address_that_somebody_else_has_is_left_to_him(self):
        self.etcd.put(PREFIX + "10.88.0.5:80", "192.168.7.9:1")
        agent = self.announce()
        self.start_server("server", agent, "18480:80")
        agent.wait_for(r"multinode: .*10\.88\.0\.5:80: somebody else has announced the same address")
        self.assertEqual(self.announced(), {**self.BOTH, "10.88.0.5:80": "192.168.7.9:1"})
        self.etcd.delete(PREFIX + "10.88.0.5:80")
        self.wait_for_announced(self.BOTH)
        self.etcd.put(PREFIX + "10.88.0.5:80", "192.168.7.9:1")
        self.delete("server")
        self.wait_for_announced({"10.88.0.5:80": "192.168.7.9:1"})

    def test_what_etcd_does_not_hear_it_hears_when_it_is_back(self):
        self.etcd.kill()
        agent = self.announce()
        self.start_server("server", agent, "18480:80")
        agent.wait_for(r"warning: multinode: .*" + self.etcd.url)
        self.etcd.start()
        self.wait_for_announced(self.BOTH)
        agent.wait_for(r"info: multinode: all published ports are announced again")

    def test_only_addresses_in_the_networks_for_that_are_announced(self):
        agent = self.announce(networks=["10.88.0.0/16"])
        self.start_server("server", agent, "18480:80")
        self.wait_for_announced({"10.88.0.5:80": f"{HOST}:18480"})


if __name__ == "__main__":
    if shutil.which("etcd") is None:
        print("skipped: etcd is not installed (tools/install-packages test)")
        sys.exit(77)
    sys.exit(main())
