#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""An agent's metrics over HTTP: what is answered, to whom, and what those get who ask slowly or not at all.

    metrics_server_test.py SHUNT
"""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from scrape import samples  # noqa: E402  (found by the line above)

SHUNT = ""
PATIENCE = 60  # seconds; nothing here takes one but what says so


class MetricsServer(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="shunt-metrics-")
        self.addCleanup(shutil.rmtree, self.folder)

    def start(self, *options, name="agent.sock"):
        agent = subprocess.Popen([SHUNT, "agent", "--socket", os.path.join(self.folder, name), *options],
                                 stderr=subprocess.PIPE, text=True)
        self.addCleanup(agent.stderr.close)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.send_signal, signal.SIGTERM)
        for line in agent.stderr:
            if found := re.search(r"metrics on http://(.*):(\d+)/metrics", line):
                self.host, self.port = found[1].strip("[]"), int(found[2])
            if "waiting for containers" in line:
                return agent
        self.fail("the agent does not start")

    def ask(self, method="GET", path="/metrics", body=None):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        self.addCleanup(connection.close)
        connection.request(method, path, body)
        return connection.getresponse()

    def connect(self):
        client = socket.create_connection((self.host, self.port), timeout=PATIENCE)
        self.addCleanup(client.close)
        return client

    def assert_scraped(self):
        answer = self.ask()
        self.assertEqual(answer.status, 200)
        self.assertEqual(samples(answer.read().decode())["shunt_listeners", ()], 0)

    def test_answers_in_prometheus_text_format(self):
        self.start("--metrics-bind-address", "127.0.0.1:0")
        answer = self.ask()
        self.assertEqual((answer.status, answer.getheader("Content-Type")),
                         (200, "text/plain; version=0.0.4; charset=utf-8"))
        read = samples(answer.read().decode())
        version = subprocess.run([SHUNT, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
        self.assertEqual(read["shunt_build_info", (("version", version),)], 1)
        self.assertLess(abs(read["shunt_engine_start_time_seconds", ()] - time.time()), PATIENCE)
        for name in ("received", "answered", "accelerated"):
            self.assertEqual(read[f"shunt_{name}_total", ()], 0)
        self.assertEqual(read["shunt_reactors", ()], len(os.sched_getaffinity(0)))

    def test_head_has_the_headers_only_and_what_is_not_there_is_not_found(self):
        self.start("--metrics-bind-address", "127.0.0.1:0")
        head = self.ask("HEAD")
        self.assertEqual((head.status, head.read()), (200, b""))
        self.assertGreater(int(head.getheader("Content-Length")), 100)
        for path in ("/", "/metrics/", "/metric"):
            self.assertEqual(self.ask(path=path).status, 404, path)
        self.assertEqual(self.ask(path="/metrics?x=y").status, 200)

    def test_other_methods_are_not_allowed(self):
        self.start("--metrics-bind-address", "127.0.0.1:0")
        for method, body in (("POST", "x" * 100_000), ("PUT", ""), ("DELETE", None), ("OPTIONS", None)):
            answer = self.ask(method, body=body)
            self.assertEqual((answer.status, answer.getheader("Allow")), (405, "GET, HEAD"), method)

    def test_is_reached_on_all_addresses_without_a_host_and_by_the_configuration(self):
        config = os.path.join(self.folder, "agent.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("metrics-bind-address: ':0'\n")
        self.start("--config", config)
        self.host = "127.0.0.1"
        self.assert_scraped()

    def test_is_off_unless_asked_for(self):
        agent = self.start()
        sockets = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
        self.assertNotIn(f"pid={agent.pid},", sockets)

    def test_silent_clients_give_way_to_those_who_ask(self):
        self.start("--metrics-bind-address", "127.0.0.1:0")
        silent = [self.connect() for _ in range(60)]
        begin = time.monotonic()
        for _ in range(3):
            self.assert_scraped()
        self.assertLess(time.monotonic() - begin, 9, "it has waited until they were ended for being slow")
        self.assertEqual(silent[0].recv(1), b"")  # it has been ended

    def test_a_client_that_asks_slowly_is_ended(self):
        """Takes ten seconds."""
        self.start("--metrics-bind-address", "127.0.0.1:0")
        begin = time.monotonic()
        slow = self.connect()
        slow.settimeout(0.5)
        with self.assertRaises((ConnectionError, EOFError)):
            while time.monotonic() < begin + PATIENCE:
                slow.sendall(b"G")
                try:
                    if slow.recv(1000) == b"":
                        raise EOFError
                except TimeoutError:
                    pass
        self.assertGreater(time.monotonic() - begin, 9)
        self.assert_scraped()

    def test_what_is_no_request_is_refused(self):
        self.start("--metrics-bind-address", "127.0.0.1:0")
        for garbage in (b"GET\r\n\r\n", b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100_000,
                        os.urandom(5000) + b"\r\n\r\n"):
            client = self.connect()
            client.settimeout(PATIENCE)
            try:
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                while client.recv(10_000):
                    pass
            except OSError:  # it had been closed
                pass
            self.assert_scraped()

    def test_an_address_that_cannot_be_is_named(self):
        self.start("--metrics-bind-address", "127.0.0.1:0")
        busy = f"127.0.0.1:{self.port}"
        config = os.path.join(self.folder, "agent.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("metrics-bind-address: nowhere\n")
        for options, names in ((["--metrics-bind-address", busy], f"{busy} .*Address already in use"),
                               (["--metrics-bind-address", "192.0.2.1:1"], "192.0.2.1:1 "),
                               (["--metrics-bind-address", "host"], "host.* should be ADDRESS:PORT"),
                               (["--config", config], "agent.yaml:1: .*metrics-bind-address.*ADDRESS:PORT")):
            result = subprocess.run([SHUNT, "agent", "--socket", os.path.join(self.folder, "o.sock"), *options],
                                    capture_output=True, text=True, timeout=PATIENCE, check=False)
            self.assertNotEqual(result.returncode, 0, options)
            self.assertRegex(result.stderr, names)
            self.assertFalse(os.path.exists(os.path.join(self.folder, "o.sock")))


if __name__ == "__main__":
    SHUNT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
