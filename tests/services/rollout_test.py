#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Servers come and go as those of a Deployment do, while a container uses them by one address.

    rollout_test.py --shunt PROGRAM [TEST]

Inside tests/support/arena. Who there is, is told by an API server's EndpointSlices, of one Service or of all of the cluster, or
by keys of a real etcd with leases; a server that is killed is taken off some time after it has died, as in a cluster. No client may see a connect that fails.
How long a change takes until a new server gets its first connection is printed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "..", "..", "bench")]
sys.path.insert(0, os.path.join(HERE, "..", "support"))
sys.path.insert(0, HERE)
import kube  # noqa: E402  (found by the lines above)
from etcd import Etcd  # noqa: E402
from kube_objects import ObjectServer, endpoint, service_of, slice_of  # noqa: E402
from stage import DEADLINE, HOST, PYTHON_CLIENT, arguments, nginx  # noqa: E402

ARGS = None
SERVICE = "10.96.0.10:80"
ORDERS = f"{{name: orders, address: '{SERVICE}', zone-aware: {{min-cluster-size: 2}}, discover: %s}}"
SECONDS = 10  # that a client connects for; what happens meanwhile takes a part of that
NOTICED_LATE = 0.3  # seconds after the death of a server, for those who tell of it


class Slices:
    """A slice for each server, because all of them have the same address and other ports."""

    def __init__(self, folder):
        kube.make_authority(folder, "ca")
        kube.sign(folder, "ca", "server", "IP:127.0.0.1")
        self.server = ObjectServer(folder, "token")
        self.kubeconfig = os.path.join(folder, "kubeconfig")
        kube.write_kubeconfig(self.kubeconfig, f"https://127.0.0.1:{self.server.port}", os.path.join(folder, "ca.crt"),
                              {"token": "token"})
        self.service = ORDERS % f"{{kubernetes: {{service: default/orders, kubeconfig: {self.kubeconfig}}}}}"

    def add(self, server, zone):
        self.server.put(slice_of(f"orders-{server.port}", endpoint(HOST, zone=zone), port=server.port))

    def say_that_it_ends(self, server):
        conditions = {"ready": False, "serving": True, "terminating": True}
        self.server.put(slice_of(f"orders-{server.port}", endpoint(HOST, conditions=conditions), port=server.port))

    def remove(self, server):
        self.server.remove(f"orders-{server.port}")

    def stop(self):
        self.server.kill()


class Cluster(Slices):
    """Its Services are all found, with their cluster IPs."""

    def __init__(self, folder):
        super().__init__(folder)
        host, port = SERVICE.split(":")
        self.server.put(service_of("orders", [host], ("http", int(port))))
        self.server.put(service_of("nobody", ["10.96.0.11"], ("http", 80)))
        self.service = ("{name: cluster, zone-aware: {min-cluster-size: 2}, "
                        f"discover: {{kubernetes: {{services: all, kubeconfig: {self.kubeconfig}}}}}}}")


class Keys:
    def __init__(self, folder):
        self.etcd = Etcd(folder)
        self.etcd.start()
        self.leases = {}
        self.service = ORDERS % f"{{etcd: {{endpoints: ['{self.etcd.url}'], prefix: /services/orders}}}}"

    def add(self, server, zone):
        self.leases[server.port] = self.etcd.lease(60)
        self.etcd.put(f"/services/orders/{server.port}", f"{{address: '{server.address}', zone: {zone}}}",
                      lease=self.leases[server.port])

    def say_that_it_ends(self, server):
        self.etcd.delete(f"/services/orders/{server.port}")

    def remove(self, server):
        """Its lease is over."""
        self.etcd.ask("lease/revoke", ID=self.leases.pop(server.port))

    def stop(self):
        self.etcd.kill()


class Rollout(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="rollout-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.registry = None
        self.running = []
        self.next_port = 18381
        self.client = None

    def use(self, registry):
        self.registry = registry
        self.addCleanup(registry.stop)

    def begin(self, *client):
        config = os.path.join(self.folder, "agent.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f"zone: a\nservices: [{self.registry.service}]\n")
        # Its log goes to a file: nobody reads a pipe meanwhile.
        self.log = open(os.path.join(self.folder, "log"), "w+", encoding="utf-8")
        self.addCleanup(self.log.close)
        self.client = subprocess.Popen([ARGS.shunt, "run", "-v", "--net", "none", "--services", config, "--", *client],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.addCleanup(self.end_client)

    def end_client(self):
        if self.client.poll() is None:
            self.client.terminate()
        self.client.communicate()

    def start_server(self, zone="a"):
        server = nginx(self.folder, self.next_port, log=os.path.join(self.folder, f"log-{self.next_port}"))
        server.log = os.path.join(self.folder, f"log-{self.next_port}")
        self.next_port += 1
        self.addCleanup(server.kill)
        server.start()
        self.registry.add(server, zone)
        self.running.append(server)
        return server

    def wait_for_answers_of(self, server):
        """Seconds until then."""
        begin = time.monotonic()
        while os.path.getsize(server.log) == 0:
            self.assertIsNone(self.client.poll(), "the client has ended early")
            self.assertLess(time.monotonic(), begin + DEADLINE, "it gets no connections")
            time.sleep(0.0005)
        return time.monotonic() - begin

    def scale_up(self, zone="a"):
        return self.wait_for_answers_of(self.start_server(zone))

    def end_orderly(self, server):
        """It is told to end and said to at the same moment."""
        self.running.remove(server)
        self.registry.say_that_it_ends(server)
        server.quit()

    def kill(self, *servers):
        for server in servers:
            self.running.remove(server)
            server.kill()
        time.sleep(NOTICED_LATE)  # part of what happens, not a wait for anything
        for server in servers:
            self.registry.remove(server)

    def live_through_it(self):
        """Everything that happens to a Deployment; a line of how long changes took."""
        delays = [self.scale_up(), self.scale_up()]
        for old in list(self.running):  # roll
            delays.append(self.scale_up())
            self.end_orderly(old)
        self.kill(self.running[0])
        of_zone_b = [self.start_server("b"), self.start_server("b")]
        delays.append(self.scale_up())  # when this one is known, those before it are
        self.kill(*[one for one in self.running if one not in of_zone_b])  # zone a is lost
        for server in of_zone_b:
            self.wait_for_answers_of(server)
        delays.append(self.scale_up())
        for server in self.running[:-1]:  # scale down
            self.end_orderly(server)
        self.assertIsNone(self.client.poll(), "the client has ended early")
        delays.sort()
        return f"a new server's first connection after {delays[0] * 1e3:.1f} to {delays[-1] * 1e3:.1f} ms"

    def end(self):
        output, _ = self.client.communicate(timeout=DEADLINE)
        self.log.seek(0)
        log = self.log.read()
        self.assertEqual(self.client.returncode, 0, log)
        return output, log

    def check_python(self, name):
        self.start_server()
        host, port = SERVICE.split(":")
        self.begin("/usr/bin/python3", "-c", PYTHON_CLIENT, host, port, str(SECONDS))
        self.wait_for_answers_of(self.running[0])
        changes = self.live_through_it()
        output, log = self.end()
        failed, reset, answers = map(int, output.split())
        print(f"{name}: {failed + reset + answers} connects, {failed} failed, {reset} reset later; {changes}", flush=True)
        self.assertEqual(failed, 0, log)
        self.assertGreater(answers, 100 * reset, log)

    def test_endpoint_slices(self):
        self.use(Slices(self.folder))
        self.check_python("EndpointSlices")

    def test_all_services_of_a_cluster(self):
        self.use(Cluster(self.folder))
        self.check_python("all Services")

    def test_endpoint_slices_under_wrk(self):
        self.use(Slices(self.folder))
        self.check_wrk()

    def test_all_services_of_a_cluster_under_wrk(self):
        self.use(Cluster(self.folder))
        self.check_wrk()

    def check_wrk(self):
        self.start_server()
        self.begin("wrk", "-t2", "-c16", f"-d{SECONDS}s", "-H", "Connection: close", f"http://{SERVICE}/")
        self.wait_for_answers_of(self.running[0])
        changes = self.live_through_it()
        output, log = self.end()
        requests = int(re.search(r"(\d+) requests in", output)[1])
        # A nonblocking connect that is refused after its answer is a failed write to wrk.
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+)", output)
        failed, reset = (int(errors[1]), int(errors[2]) + int(errors[3])) if errors else (0, 0)
        missed = int((re.search(r"failover_missed (\d+)", log) or [0, 0])[1])
        print(f"wrk: {requests} requests, {failed} connects failed, {reset} reset later; {changes}", flush=True)
        # wrk does not wait in connect(): one that had not failed yet when it was answered is not ours, and counted.
        self.assertLessEqual(failed, missed, log)
        self.assertLess(failed + reset, missed + max(20, requests // 100), log)

    @unittest.skipIf(shutil.which("etcd") is None, "etcd is not installed (tools/install-packages test)")
    def test_keys_of_etcd(self):
        self.use(Keys(self.folder))
        self.check_python("etcd")


def main():
    global ARGS
    ARGS, rest = arguments("nginx", "wrk", "openssl")
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
