#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Services of `shunt agent` with a real runtime: what the operator writes and says, and what containers get.

    agent_test.py --agent PROGRAM --runtime runc|crun --as root|user [TEST]

The containers have no ordinary network. Backends are nginx on the arena's host, which answer with their port.
"""

import contextlib
import os
import re
import shutil
import socket
import sys

sys.dont_write_bytecode = True
from service_case import GET, SERVICE, ServiceCase, with_network  # noqa: E402  (it leads to those below)
from runtime_case import main  # noqa: E402
from scrape import scrape  # noqa: E402
from stage import HOST  # noqa: E402


class Services(ServiceCase):
    def setUp(self):
        super().setUp()
        self.backends = self.start_servers(18181, 18182, 18183)

    def write_service(self, *lines, backends=None):
        listed = ", ".join(backend.address for backend in (self.backends if backends is None else backends))
        more = "".join(f"    {line}\n" for line in lines)
        self.write(f"services:\n  - name: web\n    address: {SERVICE}\n{more}    backends: [{listed}]\n")

    def serve(self, *options):
        return self.start_agent("--config", self.config, *options)

    def state_of(self, agent, backend):
        return next(one["state"] for one in self.report(agent)["backends"] if one["address"] == backend.address)

    def port_of(self, *numbers):
        return {str(self.backends[number].port) for number in numbers}

    def test_containers_reach_the_backends(self):
        self.write_service("policy: round-robin")
        agent = self.serve()
        self.assertEqual(self.ports(agent), self.port_of(0, 1, 2))
        report = self.report(agent)
        self.assertEqual(sum(one["picks"] for one in report["backends"]), 12)
        self.assertEqual({one["state"] for one in report["backends"]}, {"up"})
        table = self.ctl(agent, "services")
        self.assertIn("web", table)
        self.assertIn(self.backends[0].address, table)

    def test_metrics_say_what_is_picked(self):
        self.write_service("policy: round-robin")
        agent = self.serve("--metrics-bind-address", "127.0.0.1:0")
        self.ports(agent, 6)
        url = re.search(r"http://\S+", next(line for line in agent.lines if "metrics on" in line))[0]
        read = scrape(url)
        for backend in self.backends:
            labels = (("backend", backend.address), ("service", "web"))
            self.assertEqual(read["shunt_service_picks_total", labels], 2)

    def test_the_operators_word_holds_and_outlives_engines(self):
        self.write_service("policy: round-robin")
        agent = self.serve()
        self.ctl(agent, "drain", "web", self.backends[0].address)
        self.ctl(agent, "disable", "web", self.backends[1].address)
        self.wait_until(lambda: self.ports(agent, 4) == self.port_of(2), "drained backends get connections")
        self.kill_engine(agent)
        self.assertEqual(self.ports(agent, 6), self.port_of(2))
        self.assertEqual(self.state_of(agent, self.backends[0]), "draining")
        self.ctl(agent, "enable", "web", self.backends[0].address)
        self.ctl(agent, "weight", "web", self.backends[2].address, "0")
        self.wait_until(lambda: self.ports(agent, 4) == self.port_of(0), "an enabled backend gets no connections")
        self.assertIn("nobody", self.ctl(agent, "drain", "nobody", self.backends[0].address, status=1))

    def test_a_reload_with_a_mistake_changes_nothing(self):
        self.write_service(backends=self.backends[:1])
        agent = self.serve()
        self.assertEqual(self.ports(agent, 3), self.port_of(0))
        self.write_service("policy: lr", backends=self.backends[1:])
        told = self.ctl(agent, "reload", status=1)
        logged = agent.wait_for("the configuration stays as it was")
        for line in (told, logged):
            self.assertIn("agent.yaml:4", line)
            self.assertIn("policy", line)
            self.assertIn("least-request", line)
        self.assertEqual(told.count("\n"), 1)
        self.assertEqual(self.ports(agent, 3), self.port_of(0))
        self.write_service(backends=self.backends[1:2])
        self.ctl(agent, "reload")
        self.wait_until(lambda: self.ports(agent, 3) == self.port_of(1), "the new configuration is not in force")

    def test_without_a_configuration_there_is_nothing_to_reload(self):
        self.assertIn("there is no configuration to read", self.ctl(self.start_agent(), "reload", status=1))

    def listed(self):
        """A file of backends, and how it gets another text."""
        path = os.path.join(self.folder, "backends.yaml")

        def tell(text):
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(text)
            os.rename(path + ".new", path)

        return path, tell

    def test_a_file_is_followed(self):
        listed, tell = self.listed()
        tell(f"[{self.backends[0].address}]")
        self.write(f"services:\n  - {{name: web, address: '{SERVICE}', discover: {{file: {listed}}}}}\n")
        agent = self.serve()
        self.assertEqual(self.ports(agent, 3), self.port_of(0))
        tell(f"[{self.backends[1].address}]")
        self.wait_until(lambda: self.ports(agent, 3) == self.port_of(1), "the file is not followed")
        tell("[nonsense")
        self.wait_until(lambda: self.report(agent)["source_error"] != "", "the mistake is not told")
        agent.wait_for(r"service web: .*backends.yaml:1")
        self.assertEqual(self.ports(agent, 3), self.port_of(1))
        os.unlink(listed)
        self.assertEqual(self.ports(agent, 3), self.port_of(1))
        tell(f"[{self.backends[2].address}]")
        self.wait_until(lambda: self.ports(agent, 3) == self.port_of(2), "the file is not found again")
        self.assertEqual(self.report(agent)["source_error"], "")
        agent.wait_for("service web: its source is right again: 1 backends")
        tell(f"['{SERVICE}']")
        agent.wait_for("is an address of the service itself")
        self.assertEqual(self.ports(agent, 3), self.port_of(2))

    def test_mistakes_that_come_again_and_again_are_told_once(self):
        listed, tell = self.listed()
        tell("[]")
        self.write(f"services:\n  - {{name: web, address: '{SERVICE}', discover: {{file: {listed}}}}}\n")
        agent = self.serve()

        def tell_both_twice():
            for text in ["[nonsense", "[{weight: 1}]"] * 2:
                before = self.report(agent)["source_error"]
                tell(text)
                self.wait_until(lambda old=before: self.report(agent)["source_error"] not in ("", old), "it is not told")

        tell_both_twice()
        tell("[]")
        agent.wait_for("service web: its source is right again: 0 backends")
        warnings = [line for line in agent.lines if "warning: service web: " in line]
        self.assertEqual(len(warnings), 2, warnings)
        tell_both_twice()
        tell("['10.0.0.1:80']")
        agent.wait_for("service web: its source is right again: 1 backends")
        self.assertEqual(len([line for line in agent.lines if "warning: service web: " in line]), 4, "not after it was right")

    def upgrade(self, agent):
        self.replace_engine(agent, lambda _: self.ctl(agent, "upgrade"))

    def is_held(self, agent, words):
        """The keeper has this text among what sources have found."""
        folder = f"/proc/{agent.process.pid}/fd"
        for number in os.listdir(folder):
            with contextlib.suppress(OSError):
                if not os.readlink(f"{folder}/{number}").startswith("/memfd:shunt-settings"):
                    continue
                with open(f"{folder}/{number}", encoding="utf-8") as file:
                    if words in file.read():
                        return True
        return False

    def test_what_a_source_has_found_outlives_engines(self):
        listed, tell = self.listed()

        def config(path):
            return f"services:\n  - {{name: web, address: '{SERVICE}', discover: {{file: {path}}}}}\n"

        tell(f"[{self.backends[0].address}, {self.backends[2].address}]")
        self.write(config(listed))
        agent = self.serve()
        self.wait_until(lambda: self.is_held(agent, self.backends[0].address), "what was found is not held")
        tell(f"[{self.backends[1].address}, {self.backends[2].address}]")
        self.wait_until(lambda: self.is_held(agent, self.backends[1].address), "the new list is not held")
        self.assertFalse(self.is_held(agent, self.backends[0].address))
        self.ctl(agent, "drain", "web", self.backends[2].address)
        os.unlink(listed)
        # The second one has it from the first, to which no source has told anything.
        for replace in (self.kill_engine, self.kill_engine, self.upgrade, self.kill_engine):
            age = self.report(agent)["source_age_s"]
            replace(agent)
            self.assertEqual(self.ports(agent, 3), self.port_of(1))
            self.assertEqual(self.state_of(agent, self.backends[2]), "draining")
            self.assertIn("backends.yaml", self.report(agent)["source_error"])
            self.assertGreater(self.report(agent)["source_age_s"], age)
        tell(f"[{self.backends[0].address}]")
        self.wait_until(lambda: self.ports(agent, 3) == self.port_of(0), "the source is not heard any more")
        self.assertEqual(self.report(agent)["source_error"], "")
        self.assertEqual(len(self.report(agent)["backends"]), 1)
        # Who is looked for elsewhere has not been found there.
        self.wait_until(lambda: self.is_held(agent, self.backends[0].address), "the third list is not held")
        self.write(config(listed + ".other"))
        self.ctl(agent, "reload")
        self.kill_engine(agent)
        self.assertEqual(self.report(agent)["backends"], [])
        # What is not looked for any more is not kept, either.
        self.write(config(listed))
        self.ctl(agent, "reload")
        self.wait_until(lambda: self.is_held(agent, self.backends[0].address), "it is not held again")
        self.write_service()
        self.ctl(agent, "reload")
        self.wait_until(lambda: not self.is_held(agent, '"found_at"'), "it is still held")

    def test_an_affinity_with_a_timeout_outlives_engines(self):
        self.write_service("policy: round-robin", "affinity: {by: user, timeout: 1h}")
        agent = self.serve()
        went = self.ports(agent, 4)
        self.assertEqual(len(went), 1)
        # The second one has it from the first, which has given it to nobody anew.
        for replace in (self.kill_engine, self.upgrade, self.kill_engine):
            replace(agent)
            self.assertEqual(self.ports(agent, 4), went)
        self.ctl(agent, "drain", "web", next(one.address for one in self.backends if str(one.port) in went))
        self.wait_until(lambda: not self.ports(agent, 1) & went, "a backend that is drained keeps its own")
        self.assertEqual(len(self.ports(agent, 4)), 1)

    def test_checks_find_who_is_down_and_who_is_back(self):
        self.write_service("health: {interval: 100ms, timeout: 100ms, fall: 2, rise: 2}", "policy: round-robin")
        agent = self.serve()
        self.backends[0].kill()
        self.wait_until(lambda: self.state_of(agent, self.backends[0]) == "down", "nobody notices that it is down")
        self.assertEqual(self.ports(agent, 8), self.port_of(1, 2))
        self.assertEqual([one["failed"] for one in self.report(agent)["backends"]], [0, 0, 0])
        self.backends[0].start()
        self.wait_until(lambda: self.state_of(agent, self.backends[0]) == "up", "nobody notices that it is back")
        self.assertEqual(self.ports(agent, 12), self.port_of(0, 1, 2))

    def test_backends_inside_are_checked_inside(self):
        self.write(f"services:\n  - {{name: web, address: '{SERVICE}', network: container, "
                   "health: {interval: 100ms, timeout: 100ms, fall: 2}, backends: [127.0.0.1:7001, 127.0.0.1:7002]}\n")
        agent = self.serve()
        self.start_container("inside", agent, program="nc -ll -p 7001 -e true", change=with_network)
        states = lambda: {one["address"]: one["state"] for one in self.report(agent)["backends"]}  # noqa: E731
        self.wait_until(lambda: states()["127.0.0.1:7002"] == "down", "nobody notices that nobody listens")
        self.assertEqual(states()["127.0.0.1:7001"], "up")

    def test_a_container_in_the_hosts_network_is_balanced_as_well(self):
        def without_network(config):
            config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "network"]
            config["mounts"] = [one for one in config["mounts"] if one["type"] != "sysfs"]

        self.write_service("policy: first", backends=self.backends[1:])
        agent = self.serve()
        self.backends[1].kill()
        folder = self.bundle("host", agent.socket, GET, traps=("connect",), change=without_network)
        result = self.runtime("run", "host", cwd=folder)
        self.assertEqual(result.stdout.split(), [str(self.backends[2].port)], result.stderr + "".join(agent.lines))

    def test_who_fails_is_ejected(self):
        self.write_service("outlier: {consecutive: 2, base-ejection: 1h, max-ejection: 1h}", "policy: round-robin")
        agent = self.serve()
        self.backends[0].kill()
        self.assertEqual(self.ports(agent, 12), self.port_of(1, 2))
        self.wait_until(lambda: self.state_of(agent, self.backends[0]) == "ejected", "it is not ejected")

        def is_left_alone():
            """As soon as the next table is there, for which there may be a tenth of a second."""
            before = self.report(agent)["backends"][0]["failed"]
            self.assertEqual(self.ports(agent, 12), self.port_of(1, 2))
            return self.report(agent)["backends"][0]["failed"] == before

        self.wait_until(is_left_alone, "it is still tried")

    def test_whoever_has_fewer_connections_gets_the_next(self):
        """Those of other programs and of engines before this one count as well."""
        self.write_service("policy: least-connections", backends=self.backends[:2])
        busy = []
        for _ in range(30):
            busy.append(socket.create_connection((HOST, self.backends[0].port), timeout=30))
            self.addCleanup(busy[-1].close)
        agent = self.serve()
        self.assertEqual(self.ports(agent, 8), self.port_of(1))
        self.assertEqual(self.report(agent)["backends"][0]["open"], 30)
        self.kill_engine(agent)
        self.assertEqual(self.ports(agent, 8), self.port_of(1))
        for one in busy:
            one.close()
        self.wait_until(lambda: self.report(agent)["backends"][0]["open"] == 0, "closed connections are counted")
        self.assertEqual(self.ports(agent, 8), self.port_of(0, 1))

    def test_who_finds_all_full_waits_over_engines(self):
        limits = "limits: {max-connections: 1, queue: 5, queue-timeout: 2m}"
        self.write_service(limits, backends=self.backends[:1])
        agent = self.serve("--metrics-bind-address", "127.0.0.1:0")
        busy = socket.create_connection((HOST, self.backends[0].port), timeout=30)
        self.addCleanup(busy.close)
        self.wait_until(lambda: self.state_of(agent, self.backends[0]) == "full", "the backend is not full")
        self.start_container("waits", agent, program=f"{GET} >/tmp/answer; mkdir /tmp/over; sleep 1000",
                             change=with_network)
        waiting = lambda: self.report(agent)["queue"]["waiting"]  # noqa: E731
        self.wait_until(lambda: waiting() == 1, "nobody waits")
        table = self.ctl(agent, "services")
        self.assertRegex(table, r"IN-FLIGHT +LIMIT")
        self.assertRegex(table, r" full .* 1 open +1\n")
        self.assertIn("at the limit: 1 wait, 0 have waited", table)
        self.kill_engine(agent)
        self.wait_until(lambda: waiting() == 1, "nobody waits in the next engine")
        self.assertEqual(self.state_of(agent, self.backends[0]), "full")
        over = os.path.join(self.rootfs, "tmp", "over")
        self.assertFalse(os.path.exists(over))
        busy.close()
        self.wait_until(lambda: os.path.exists(over), "it is not let in")
        with open(os.path.join(self.rootfs, "tmp", "answer"), encoding="utf-8") as file:
            self.assertEqual(file.read().split(), [str(self.backends[0].port)])
        url = re.search(r"http://\S+", next(line for line in agent.lines if "metrics on" in line))[0]
        read, of_web = scrape(url), (("service", "web"),)
        self.assertEqual(read["shunt_service_queue_seconds_count", of_web], 1)
        self.assertEqual(read["shunt_service_queued", of_web], 0)

    def test_connections_to_who_has_gone_are_closed(self):
        self.write_service("drain: {on-removal: 0s}", backends=self.backends[:1])
        agent = self.serve()
        # Says nothing, so the server keeps it; ends when the connection does.
        program = "mkfifo /tmp/f; exec 3<>/tmp/f; nc 10.96.0.10 80 <&3; mkdir /tmp/closed; sleep 1000"
        self.start_container("keeps", agent, program=program, change=with_network)
        self.wait_until(lambda: self.report(agent)["backends"][0]["connected"] == 1, "it does not connect")
        self.assertFalse(os.path.exists(os.path.join(self.rootfs, "tmp", "closed")))
        self.write_service("drain: {on-removal: 0s}", backends=self.backends[1:2])
        self.ctl(agent, "reload")
        self.wait_until(lambda: os.path.exists(os.path.join(self.rootfs, "tmp", "closed")), "its connection stays")


if __name__ == "__main__":
    if shutil.which("nginx") is None:
        print("skipped: nginx is not installed (tools/install-packages test)")
        sys.exit(77)
    assert HOST
    sys.exit(main())
