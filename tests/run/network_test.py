#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The ordinary networks of `shunt run`: nothing here is accelerated.

    tests/support/arena [--user] -- tests/run/network_test.py SHUNT [CLASS[.TEST]...]
"""

import http.server
import os
import shutil
import socket
import socketserver
import subprocess
import tempfile
import threading
import time
import unittest

from shunt_run import SHUNT, PYTHON, DEADLINE, IS_ROOT, command_line, run, start, main


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.server.body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server:
    """An HTTP server in the arena's host network."""

    def __init__(self, address, body=b"x" * 100000, family=socket.AF_INET):
        # HTTPServer's own server_bind looks up its name, which takes long where there is no resolver.
        kind = type("HTTPServer", (http.server.ThreadingHTTPServer,),
                    {"address_family": family, "server_bind": socketserver.TCPServer.server_bind})
        self.server = kind((address, 0), Handler)
        self.server.body = body
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


# fetch URL...: prints, for each, the length of the answer, or the error's name. Waits for an IPv6 address if one is needed:
# slirp4netns announces it, which takes a moment.
FETCH = r"""
import concurrent.futures, sys, time, urllib.request, urllib.error
def has_ipv6():
    with open("/proc/self/net/if_inet6") as file:
        return any(line.split()[5] == "tap0" and line.split()[3] == "00" for line in file)
def fetch(url):
    try: return len(urllib.request.urlopen(url, timeout=3).read())
    except urllib.error.URLError as error: return type(error.reason).__name__
    except OSError as error: return type(error).__name__
end = time.monotonic() + 10
while "[" in sys.argv[1] and not has_ipv6() and time.monotonic() < end: time.sleep(0.05)
with concurrent.futures.ThreadPoolExecutor(8) as pool: print(*pool.map(fetch, sys.argv[1:]))
"""

# serve PORT: answers one request with a greeting. The client speaks first and hangs up first: pasta as of 2023 loses what a
# server sends and ends at once, with or without us.
SERVE_ONE = r"""
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("ready", flush=True)
client, _ = server.accept()
client.recv(1)
client.sendall(b"hello from inside")
client.recv(1)
"""

# send HOST PORT SIZE: sends zeros and ends.
SEND = r"""
import os, socket, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])))
client.sendall(bytes(int(sys.argv[3])))
os._exit(0)
"""


def ask(address, port):
    """What SERVE_ONE answers."""
    with socket.create_connection((address, port), timeout=DEADLINE) as client:
        client.sendall(b"?")
        return client.recv(100).decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return probe.getsockname()[1]


class Network(unittest.TestCase):
    HOST = os.environ.get("ARENA_HOST", "")
    HOST6 = os.environ.get("ARENA_HOST6", "")

    def programs(self):
        found = [name for name in ("slirp4netns", "pasta") if shutil.which(name)]
        if not found:
            self.skipTest("neither slirp4netns nor pasta is installed")
        if not self.HOST:
            self.skipTest("runs in tests/support/arena only")
        return found

    def fetch(self, net, *urls):
        result = run("--", PYTHON, "-c", FETCH, *urls, net=net)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.split()

    def test_carries_traffic_to_the_host(self):
        server = Server(self.HOST)
        self.addCleanup(server.close)
        for net in self.programs():
            self.assertEqual(self.fetch(net, f"http://{self.HOST}:{server.port}/"), ["100000"], net)

    def test_carries_ipv6_traffic_to_the_host(self):
        server = Server(self.HOST6, family=socket.AF_INET6)
        self.addCleanup(server.close)
        for net in self.programs():
            self.assertEqual(self.fetch(net, f"http://[{self.HOST6}]:{server.port}/"), ["100000"], net)

    def test_delivers_what_was_written_before_the_command_ended(self):
        size = 8_000_000
        for net in self.programs():
            with socket.create_server((self.HOST, 0)) as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
                process = start("--", PYTHON, "-c", SEND, self.HOST, str(server.getsockname()[1]),
                                str(size), net=net)
                client, _ = server.accept()
                client.settimeout(DEADLINE)
                received = 0
                # A slow reader: the command is through while megabytes wait in its namespace.
                while chunk := client.recv(65536):
                    received += len(chunk)
                    time.sleep(0.002)
                client.close()
                process.communicate(timeout=DEADLINE)
                self.assertEqual(received, size, net)

    def test_does_not_reach_the_hosts_loopback(self):
        server = Server("127.0.0.1")
        self.addCleanup(server.close)
        for net in self.programs():
            urls = [f"http://{address}:{server.port}/" for address in ("127.0.0.1", "10.0.2.2", "10.0.2.3")]
            self.assertNotIn("100000", self.fetch(net, *urls), net)

    def test_does_not_reach_the_hosts_ipv6_loopback(self):
        server = Server("::1", family=socket.AF_INET6)
        self.addCleanup(server.close)
        for net in self.programs():
            addresses = ("::1", "fd00::2", "fd00::3", "fd00:2::2", "::ffff:10.0.2.2")
            urls = [f"http://[{address}]:{server.port}/" for address in addresses]
            self.assertNotIn("100000", self.fetch(net, *urls), net)

    def test_is_the_first_that_is_installed_when_none_is_asked_for(self):
        first = self.programs()[0]
        result = run("-v", "--no-accelerate", "--", "cat", "/etc/resolv.conf", net=None)
        self.assertIn(f"network: {first}", result.stderr)
        self.assertIn("nameserver 10.0.2.3", result.stdout)

    def test_the_container_has_an_address_that_is_not_the_hosts(self):
        for net in self.programs():
            result = run("--", "ip", "-o", "-4", "addr", net=net)
            self.assertIn("10.0.2.100/24", result.stdout)
            self.assertNotIn(self.HOST, result.stdout)

    def test_published_ports_are_forwarded(self):
        for net in self.programs():
            for host_ip, address in (("", self.HOST), ("", "127.0.0.1"), ("127.0.0.1:", "127.0.0.1")):
                port = free_port()
                process = start("-p", f"{host_ip}{port}:8080", "--", PYTHON, "-c", SERVE_ONE, "8080",
                                net=net)
                self.assertEqual(process.stdout.readline(), "ready\n")
                self.assertEqual(ask(address, port), "hello from inside", (net, host_ip))
                process.communicate(timeout=DEADLINE)
                self.assertEqual(process.returncode, 0)

    def test_a_published_host_address_is_kept(self):
        for net in self.programs():
            port = free_port()
            process = start("-p", f"127.0.0.1:{port}:8080", "--", PYTHON, "-c", SERVE_ONE, "8080", net=net)
            self.assertEqual(process.stdout.readline(), "ready\n")
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection((self.HOST, port), timeout=10)
            process.kill()
            process.communicate(timeout=DEADLINE)

    def test_a_taken_port_is_an_error_that_names_it(self):
        with socket.create_server(("0.0.0.0", 0)) as taken:
            port = taken.getsockname()[1]
            for net in self.programs():
                result = run("-p", f"{port}:80", "--", "true", net=net)
                self.assertEqual(result.returncode, 1)
                self.assertIn(str(port), result.stderr)
                self.assertIn("taken", result.stderr)

    def test_leaves_the_mounts_of_the_host_alone(self):
        if not IS_ROOT:
            self.skipTest("needs root to mount something")
        # Shared mounts, as systemd makes them, and one below another. They are this test's own.
        script = """
            mount -t tmpfs none "$1" && mkdir "$1/below" && mount -t tmpfs none "$1/below" || exit 3
            shift
            before=$(cat /proc/mounts)
            "$@" || exit 4
            after=$(cat /proc/mounts)
            test "$before" = "$after"
        """
        for net in self.programs():
            with tempfile.TemporaryDirectory() as directory:
                host = ["unshare", "--mount", "--propagation", "shared", "sh", "-c", script, "sh", directory]
                result = subprocess.run(host + command_line(net, ["--", "true"]), capture_output=True, text=True,
                                        timeout=DEADLINE)
                self.assertEqual((result.returncode, result.stderr), (0, ""), net)

    def test_without_tun_the_command_runs_without_a_network_and_one_line_names_the_remedy(self):
        self.programs()
        if not IS_ROOT:
            self.skipTest("needs root to take /dev/net/tun away")
        mode = os.stat("/dev/net/tun").st_mode & 0o777
        os.chmod("/dev/net/tun", 0o600)
        self.addCleanup(os.chmod, "/dev/net/tun", mode)
        command = ["setpriv", "--reuid", "7331", "--regid", "7331", "--init-groups", "--", SHUNT, "run", "--no-accelerate"]
        result = subprocess.run(command + ["--", "echo", "ran"], capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual((result.returncode, result.stdout), (0, "ran\n"))
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn("chmod 0666 /dev/net/tun", result.stderr)
        result = subprocess.run(command + ["--net", "slirp4netns", "--", "echo", "ran"],
                                capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual((result.returncode, result.stdout), (1, ""))


if __name__ == "__main__":
    main()
