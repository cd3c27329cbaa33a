#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real containers hand their seccomp listeners to `shunt agent`.

    agent_test.py --agent PROGRAM --runtime runc|crun --as root|user

Starts PROGRAM's `agent` in an arena and containers of the runtime beside it. Each container makes trapped
calls, so it only gets on if it is really served. What is checked comes from the agent's log and its open
descriptors.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from runtime_case import ARENA, ARGS, PATIENCE, RuntimeCase, main  # noqa: E402
from scrape import requests, scrape  # noqa: E402  (found by the line above)


def descendants(pid):
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children", encoding="utf-8") as file:
            for child in map(int, file.read().split()):
                found += [child, *descendants(child)]
    return found


def name_of(pid):
    """None: it has ended."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None


class RuntimeTest(RuntimeCase):
    def test_serves_a_container_and_forgets_it(self):
        agent = self.start_agent()
        before = agent.descriptors()
        self.assert_served(self.run_container("c1", agent))
        line = agent.wait_for(r"container c1: serving it \(pid ")
        if os.getuid() == 0 or ARGS.runtime == "runc":
            self.assertRegex(line, r"\(pid [1-9][0-9]*, of user %d, published ports: none\)" % os.getuid())
        agent.wait_for(r"container c1: ended \(0 listeners left, of 0 containers\)")
        self.wait_for_descriptors(agent, before)

    def wait_for_descriptors(self, agent, count):
        """A connection that has brought a container may stay a little while, until its runtime has gone."""
        end = time.monotonic() + PATIENCE
        while agent.descriptors() != count and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(agent.descriptors(), count)

    def test_serves_what_is_executed_in_a_running_container(self):
        agent = self.start_agent()
        before = agent.descriptors()
        self.start_container("c2", agent)
        agent.wait_for(r"container c2: serving it ")
        for number in range(3):
            self.assert_served(self.execute("c2", number))
            agent.wait_for(r"container c2: serving a process started in it \(pid ")
            agent.wait_for(r"container c2: ended \(1 listeners left, of 1 containers\)")
        self.runtime("kill", "c2", "KILL")
        agent.wait_for(r"container c2: ended \(0 listeners left, of 0 containers\)")
        self.wait_for_descriptors(agent, before)

    def test_serves_many_containers_one_after_another(self):
        agent = self.start_agent()
        before = agent.descriptors()
        for i in range(15):
            self.assert_served(self.run_container(f"many{i}", agent))
            agent.wait_for(rf"container many{i}: ended")
        self.wait_for_descriptors(agent, before)

    def test_reads_wishes_from_metadata_and_annotations(self):
        agent = self.start_agent()
        self.assert_served(self.run_container("c3", agent, metadata="pod=x;shunt.publish=8080:80",
                                              annotations={"shunt/publish": "127.0.0.1:8443:443", "a": "x"}))
        agent.wait_for(r"container c3: serving it .*published ports: 8080:80,127\.0\.0\.1:8443:443\)")

    def test_a_container_with_an_unusable_wish_works_on_its_ordinary_path(self):
        agent = self.start_agent()
        self.assert_served(self.run_container("c4", agent, metadata="shunt.publish=99999:80"))
        agent.wait_for(r"error: container c4 .*shunt\.publish: .*99999.*; its connections stay on")
        agent.wait_for(r"container c4: ended \(0 listeners left")

    def test_what_is_executed_in_a_container_shares_its_host_ports(self):
        agent = self.start_agent()
        self.start_container("first", agent, metadata="shunt.publish=8080:80")
        self.assert_served(self.execute("first"))
        agent.wait_for(r"container first: serving a process started in it .*published ports: 8080:80\)")
        agent.wait_for(r"container first: ended \(1 listeners left, of 1 containers\)")
        self.start_container("second", agent, metadata="shunt.publish=8080:80")
        agent.wait_for(r"error: container second: its published port 8080:80 belongs to container first ")

    def test_promises_a_host_port_to_one_container_at_a_time(self):
        agent = self.start_agent()
        self.start_container("first", agent, metadata="shunt.publish=8080:80")
        agent.wait_for(r"container first: serving it .*published ports: 8080:80\)")
        self.start_container("second", agent, metadata="shunt.publish=8080:90,8081:91")
        agent.wait_for(r"error: container second: its published port 8080:90 belongs to container first ")
        agent.wait_for(r"container second: serving it .*published ports: 8081:91\)")
        self.runtime("kill", "first", "KILL")
        agent.wait_for(r"container first: ended \(1 listeners left, of 1 containers\)")
        self.start_container("third", agent, metadata="shunt.publish=8080:80")
        agent.wait_for(r"container third: serving it .*published ports: 8080:80\)")

    def ask(self, port):
        """What a server on the host's port says; polls until one listens."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection(("203.0.113.1", port), PATIENCE) as client:
                    return client.makefile().read()
            except ConnectionRefusedError:
                self.assertLess(time.monotonic(), end, f"nobody listens on port {port}")
                time.sleep(0.005)

    def test_a_published_server_is_reached_from_the_host_and_from_what_is_executed_beside_it(self):
        if os.getuid() != 0:
            self.skipTest("to publish takes the eBPF lock, which an ordinary user has from a lock server only")
        agent = self.start_agent()
        self.start_container("server", agent, "nc -ll -p 80 -e echo served", metadata="shunt.publish=8080:80")
        self.assertEqual(self.ask(8080), "served\n")
        for address in "127.0.0.1", "0.0.0.0":
            result = self.runtime("exec", "server", "nc", address, "80")
            self.assertEqual((result.returncode, result.stdout), (0, "served\n"), result.stderr)
        # The port has one owner inside, too.
        result = self.runtime("exec", "server", "nc", "-l", "-p", "80")
        self.assertIn("Address already in use", result.stderr)

    def test_what_is_executed_in_a_container_may_bind_its_published_port(self):
        if os.getuid() != 0:
            self.skipTest("to publish takes the eBPF lock, which an ordinary user has from a lock server only")
        agent = self.start_agent()
        self.start_container("server", agent, metadata="shunt.publish=8080:80")
        # A client inside is served by another listener than the server, perhaps on another reactor.
        for outside in False, True, False:
            with subprocess.Popen([*self.runtime_command("exec", name="server"), "nc", "-l", "-p", "80", "-e", "echo", "x"],
                                  stdin=subprocess.DEVNULL) as server:
                if outside:
                    self.assertEqual(self.ask(8080), "x\n")
                else:
                    result = self.runtime("exec", "server", "sh", "-c",
                                          "until nc 127.0.0.1 80 2>/dev/null; do :; done")
                    self.assertEqual((result.returncode, result.stdout), (0, "x\n"), result.stderr)
                self.assertEqual(server.wait(), 0)

    def test_a_port_of_a_pod_is_whose_container_binds_it(self):
        if os.getuid() != 0:
            self.skipTest("to publish takes the eBPF lock, which an ordinary user has from a lock server only")
        agent = self.start_agent()
        of_the_pod = {"io.kubernetes.cri.sandbox-name": "web", "io.kubernetes.cri.sandbox-namespace": "prod",
                      "shunt/publish": "8080:80"}
        self.start_container("first", agent, annotations=of_the_pod)
        state = json.loads(self.runtime("state", "first").stdout)

        def join(config):
            network = next(one for one in config["linux"]["namespaces"] if one["type"] == "network")
            network["path"] = f"/proc/{state['pid']}/ns/net"

        self.start_container("second", agent, "nc -ll -p 80 -e echo served", annotations=of_the_pod, change=join)
        agent.wait_for(r"container second: serving it .*published ports: 8080:80\)")
        self.assertEqual(self.ask(8080), "served\n")
        # The first one has the same network, where the port is bound now.
        result = self.runtime("exec", "first", "nc", "127.0.0.1", "80")
        self.assertEqual((result.returncode, result.stdout), (0, "served\n"), result.stderr)
        result = self.runtime("exec", "first", "nc", "-l", "-p", "80")
        self.assertIn("Address already in use", result.stderr)

    def test_a_port_of_another_container_is_in_use(self):
        if os.getuid() != 0:
            self.skipTest("to publish takes the eBPF lock, which an ordinary user has from a lock server only")
        agent = self.start_agent()
        self.start_container("first", agent, metadata="shunt.publish=8080:80")
        # Nobody has bound it yet, but it is promised.
        self.start_container("second", agent, metadata="shunt.publish=8080:80")
        result = self.runtime("exec", "second", "nc", "-l", "-p", "80")
        self.assertIn("Address already in use", result.stderr)

    def chmod(self, name, agent, **keywords):
        """Runs a container that changes a mode; what the program said of it."""
        folder = self.bundle(name, agent.socket, "chmod 700 /tmp && echo changed", traps=["chmod", "fchmodat"],
                             **keywords)
        return self.runtime("run", name, cwd=folder)

    def test_a_call_fails_as_metadata_says(self):
        agent = self.start_agent()
        result = self.chmod("c20", agent, metadata="ERRNO=chmod:EBADMSG,fchmodat:EBADMSG")
        self.assertEqual(result.stdout, "", result.stderr)
        self.assertIn("chmod: /tmp: Bad message", result.stderr)

    def test_with_the_resolver_none_metadata_changes_nothing(self):
        agent = self.start_agent("--resolver", "none", "--strict")
        result = self.chmod("c21", agent, metadata="ERRNO=chmod:EBADMSG\nNONSENSE=1")
        self.assertEqual(result.stdout, "changed\n", result.stderr)

    def test_no_worker_outlives_the_keeper(self):
        agent = self.start_agent("--resolver", "demo-basic")
        folder = self.bundle("c33", agent.socket, "mkdir /abc; sleep 1000")
        container = subprocess.Popen(self.runtime_command("run", name="c33"), cwd=folder, stdin=subprocess.DEVNULL)
        self.addCleanup(container.wait)
        self.addCleanup(self.delete, "c33")
        end = time.monotonic() + PATIENCE
        while not any(name.startswith("abc-pid-") for name in os.listdir(self.rootfs)):
            self.assertLess(time.monotonic(), end, "".join(agent.lines))
            time.sleep(0.005)
        processes = descendants(agent.process.pid)
        workers = {pid for pid in processes if name_of(pid) == "shunt-worker"}
        self.assertTrue(workers, processes)
        agent.process.kill()
        # Their numbers cannot be others' so soon.
        while any(name_of(pid) == "shunt-worker" for pid in workers):
            self.assertLess(time.monotonic(), end, "a worker is left")
            time.sleep(0.005)

    def test_a_mistake_in_metadata_is_told_and_has_no_effect(self):
        agent = self.start_agent()
        result = self.chmod("c23", agent, metadata="ERRNO=chmod:EBADMSG,fchmodat:EBADMSG\nMKDRI_TMPL=\033[2Jx")
        agent.wait_for(r"warning: container c23: its listenerMetadata, MKDRI_TMPL: unknown key: .* \(without effect\)")
        self.assertIn("chmod: /tmp: Bad message", result.stderr)
        result = self.chmod("c24", agent, metadata="DEFAULT_ACTION=\033[2J")
        agent.wait_for(r"warning: container c24: its listenerMetadata, DEFAULT_ACTION: .*\\x1b\[2J")
        self.assertEqual(result.stdout, "changed\n", result.stderr)
        self.assertNotIn("\033", "".join(agent.lines))

    def test_strict_mode_refuses_a_container_whose_metadata_has_a_mistake(self):
        path = os.path.join(self.folder, "agent.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("strict: true\n")
        for options in (["--strict"], ["--config", path]):
            agent = self.start_agent(*options)
            result = self.chmod("c25", agent, metadata="MKDRI_TMPL=x")
            self.assertEqual(result.stdout, "")
            self.assertIn("Operation not permitted", result.stderr)
            agent.wait_for(r"error: container c25 is refused")
            agent.wait_for(r"error: container c25: its listenerMetadata, MKDRI_TMPL: unknown key")
            agent.wait_for(r"container c25: ended")
            result = self.chmod("c26", agent, metadata="MKDIR_TMPL=x")
            self.assertEqual(result.stdout, "changed\n", result.stderr)
            agent.stop()
            for name in ("c25", "c26"):
                shutil.rmtree(os.path.join(self.folder, name))

    def test_a_rule_of_the_configuration_holds_until_a_right_one_takes_its_place(self):
        path = os.path.join(self.folder, "agent.yaml")

        def configure(text):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)

        configure("containers:\n  - select: {annotations: {tier: front*}}\n"
                  "    handlers: {errors: {chmod: EBADMSG, fchmodat: EBADMSG}}\n")
        agent = self.start_agent("--config", path, "--verbose")
        front = {"annotations": {"tier": "frontend"}}
        self.assertIn("Bad message", self.chmod("c27", agent, **front).stderr)
        agent.wait_for(r"debug: container c27: rule of line 2 holds for it")
        self.assertEqual(self.chmod("c28", agent).stdout, "changed\n")
        configure("containers:\n  - select: {annotations: {tier: front*}}\n    handlers: {errors: {chmud: EBADMSG}}\n")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for(r"error: the configuration stays as it was: .*agent\.yaml:3: .*\"chmud\" is no system call")
        self.assertIn("Bad message", self.chmod("c29", agent, **front).stderr)
        configure("containers: []\n")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for(r"read the configuration")
        self.assertEqual(self.chmod("c30", agent, **front).stdout, "changed\n")

    def test_explains_a_configuration(self):
        path = os.path.join(self.folder, "agent.yaml")
        for text, status, said in (("containers: [{select: {labels: {app: x}}}]\n", 0, ":1:   labels: {app: x} -- "),
                                   ("containers: [{select: {label: x}}]\n", 2, ":1: unknown key \"containers.select.label\"")):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            result = subprocess.run([ARGS.agent, "agent", "--check-config", path], timeout=PATIENCE,
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, status, result.stderr)
            self.assertIn("agent.yaml" + said, result.stdout + result.stderr)

    def test_escapes_what_a_container_says(self):
        agent = self.start_agent()
        self.assert_served(self.run_container("c5", agent, metadata="shunt.publish=\033[2J\r"))
        agent.wait_for(r"error: container c5 .*\\x1b\[2J")
        self.assertNotIn("\033", "".join(agent.lines))

    def test_reads_its_configuration_again_on_sighup(self):
        path = os.path.join(self.folder, "agent.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("publish: {enabled: false}\n")
        agent = self.start_agent("--config", path)
        self.assert_served(self.run_container("c6", agent, metadata="shunt.publish=8080:80"))
        agent.wait_for(r"error: container c6 .*not enabled")
        with open(path, "w", encoding="utf-8") as file:
            file.write("publish:\n  enabled: true\nignored: []\n")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for(r"error: the configuration stays as it was: .*agent\.yaml:3: unknown key \"ignored\"")
        self.assert_served(self.run_container("c7", agent, metadata="shunt.publish=8080:80"))
        agent.wait_for(r"error: container c7 .*not enabled")
        with open(path, "w", encoding="utf-8") as file:
            file.write("publish: {host-ip: 127.0.0.1}\n")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait_for(r"read the configuration")
        self.assert_served(self.run_container("c8", agent, metadata="shunt.publish=8080:80"))
        agent.wait_for(r"container c8: serving it .*published ports: 127\.0\.0\.1:8080:80\)")

    def test_the_configuration_that_we_ship_is_right(self):
        shipped = os.path.join(os.path.dirname(ARENA), "..", "..", "deploy", "agent.yaml")
        self.assert_served(self.run_container("c9", self.start_agent("--config", shipped)))

    def test_tells_what_it_has_counted_on_sigusr1(self):
        agent = self.start_agent()
        agent.process.send_signal(signal.SIGUSR1)
        agent.wait_for(r"counters: none")
        self.assert_served(self.run_container("c10", agent))
        agent.wait_for(r"container c10: ended")
        agent.process.send_signal(signal.SIGUSR1)
        agent.wait_for(r"counters: received \d+, ")

    def test_is_ready_for_its_service_manager(self):
        path = os.path.join(self.folder, "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(PATIENCE)
            agent = self.start_agent(environment={"NOTIFY_SOCKET": path})
            self.assertEqual(manager.recv(100), b"READY=1")
            self.assertEqual(agent.stop(), 0)
            self.assertEqual(manager.recv(100), b"STOPPING=1")

    def scrape(self, agent):
        return scrape(re.search(r"http://\S+", next(line for line in agent.lines if "metrics on" in line))[0])

    def wait_for_requests(self, agent, expected):
        """The reactor counts after it has answered."""
        end = time.monotonic() + PATIENCE
        while (counts := requests(self.scrape(agent))) != expected and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(counts, expected)

    def test_times_the_calls_of_containers_that_want_it(self):
        agent = self.start_agent("--metrics-bind-address", "127.0.0.1:0")
        pod = {"io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-name": "till"}
        # It stays: what a worker has not told yet when its container ends is counted as a call without an answer.
        self.start_container("timed", agent, "mkdir /tmp/timed; mkdir /nowhere/x; sleep 1000", marker="timed-x",
                             metadata="MIDDLEWARE=prometheus\nMKDIR_TMPL=-x", annotations=pod)
        self.assert_served(self.run_container("untimed", agent, annotations=pod))
        # What a worker has met in the container, and as the container was told.
        self.wait_for_requests(agent, {("shop", "mkdir", "0"): 1, ("shop", "mkdir", "17"): 1,
                                       ("shop", "mkdir", "2"): 1})

    def test_a_configuration_has_all_containers_timed(self):
        config = os.path.join(self.folder, "agent.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("metrics-bind-address: 127.0.0.1:0\nmiddleware: [prometheus]\n")
        agent = self.start_agent("--config", config)
        self.assert_served(self.run_container("all", agent))
        self.wait_for_requests(agent, {("", "mkdir", "0"): 1})

    def test_metrics_are_there_again_after_an_engine_was_killed(self):
        agent = self.start_agent("--metrics-bind-address", "127.0.0.1:0")
        self.start_container("kept", agent, metadata="MIDDLEWARE=prometheus")
        agent.wait_for("container kept: serving it")
        self.wait_for_requests(agent, {("", "mkdir", "0"): 1})
        for kills in range(1, 4):
            before = self.scrape(agent)
            os.kill(self.engine_of(agent), signal.SIGKILL)
            after = self.scrape(agent)  # waits in the socket's backlog for the next engine
            self.assertEqual(after["shunt_received_total", ()], before["shunt_received_total", ()])
            self.assertEqual(after["shunt_listeners", ()], 1)
            self.assertEqual(requests(after), {}, "durations begin at 0 with each engine")
            self.assert_served(self.execute("kept", kills))
            self.wait_for_requests(agent, {("", "mkdir", "0"): 1})

    @staticmethod
    def engine_of(agent):
        """The starter's child."""
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                    name, rest = file.read().split("(", 1)[1].rsplit(")", 1)
                with open(f"/proc/{rest.split()[1]}/stat", encoding="utf-8", errors="replace") as file:
                    grandparent = int(file.read().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if name == "shunt-engine" and grandparent == agent.process.pid:
                return int(entry)
        raise AssertionError("the agent has no engine")

    def test_leaves_nothing_behind(self):
        for how in (signal.SIGTERM, signal.SIGINT):
            agent = self.start_agent()
            self.assertTrue(os.path.exists(agent.socket))
            self.assertEqual(agent.stop(how), 0)
            self.assertFalse(os.path.exists(agent.socket))

    def test_wrong_options_end_it_with_one_line_that_names_them(self):
        missing = os.path.join(self.folder, "none")
        bad = os.path.join(self.folder, "bad.yaml")
        with open(bad, "w", encoding="utf-8") as file:
            file.write("allow-uids: [0]\nlog:\n  level: loud\n")
        busy = self.start_agent()
        good = os.path.join(self.folder, "other.sock")
        for options, names in (
                (["--config", missing], missing),
                (["--config", self.folder], self.folder),
                (["--config", bad], "bad.yaml:3: \"log.level\": should be debug, info, warning or error"),
                (["--ready-fd", "99"], "--ready-fd 99"),
                (["--socket", missing + "/s.sock"], missing),
                (["--socket", busy.socket], "another process answers on " + busy.socket)):
            with self.subTest(options=options):
                socket_option = [] if "--socket" in options else ["--socket", good]
                result = subprocess.run([ARGS.agent, "agent", *socket_option, *options], timeout=PATIENCE,
                                        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
                self.assertTrue(result.stderr.startswith("shunt agent: "), result.stderr)
                self.assertIn(names, result.stderr)
                self.assertFalse(os.path.exists(good))


if __name__ == "__main__":
    sys.exit(main())
