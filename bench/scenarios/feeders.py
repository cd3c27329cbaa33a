# SPDX-License-Identifier: Apache-2.0
"""Sources that tell an agent of endpoints (docs/services.md), and change them all the time. Another kind of source is a class
more here, and a line in FEEDERS."""

import base64
import functools
import http.client
import itertools
import json
import os
import subprocess
import threading
import time

from scenarios.api_server import SPACE, ApiServer, service_of, slice_of
from scenarios.servers import serve
from scenarios.stage import Failed

SERVICES = 10  # that such a source knows about
ENDPOINTS = 100  # of each of them
TICK = 0.05  # seconds from one lot of changes to the next


def endpoint(number):
    """An address that nobody has."""
    return f"10.{128 + (number >> 16) % 128}.{number >> 8 & 255}.{number & 255}:8080"


def address_of(service):
    """Where programs would connect to it."""
    return f"10.96.254.{service + 1}"


def still_service(number):
    """(name, address, endpoints) of one that stays as it is."""
    first = 10_000_000 + number * 10  # far from those that feeders make
    return f"still-{number}", f"10.96.{number // 250}.{number % 250}", [endpoint(first + i) for i in range(10)]


class Feeder:
    """Holds what the services have; kinds of sources say how it is told. Of `still` more services nothing changes: most kinds
    leave them to the agent's configuration."""

    knows_all = False  # the still ones as well

    def __init__(self, stage, folder, still):
        self.stage, self.folder, self.still = stage, folder, still
        self.fresh = itertools.count(1)
        self.endpoints = [[endpoint(next(self.fresh)) for _ in range(ENDPOINTS)] for _ in range(SERVICES)]
        self.turn = itertools.cycle(itertools.product(range(0, ENDPOINTS), range(SERVICES)))

    def begin(self):
        """The source is there afterwards, until stage.stop_servers(), with what all services have."""
        for service in range(SERVICES):
            self.tell(service, range(ENDPOINTS))

    def entries(self):
        """Lines of the agent's configuration, below `services:`."""
        return [f"  - {{name: {self.name(service)}, address: '{address_of(service)}:80', discover: {self.discover(service)}}}"
                for service in range(SERVICES)]

    def name(self, service):
        """As the agent calls it."""
        return f"fed-{service}"

    def discover(self, service):
        """What stands behind `discover:`."""
        raise NotImplementedError

    def tell(self, service, places):
        """Lets the source have these endpoints of the service as they now are."""
        raise NotImplementedError

    def told(self):
        """(bytes at the start, bytes since then) that the source has told one agent; None: nobody counts."""
        return None

    def change(self, count):
        """Replaces the endpoints whose turn it is by others; of all services in turn."""
        changed = {}
        for place, service in itertools.islice(self.turn, count):
            self.endpoints[service][place] = endpoint(next(self.fresh))
            changed.setdefault(service, []).append(place)
        for service, places in changed.items():
            self.tell(service, places)


class Files(Feeder):
    """A file for each service, written anew for whatever changes, and renamed."""

    def path(self, service):
        return os.path.join(self.folder, f"endpoints-{service}.json")

    def discover(self, service):
        return f"{{file: {self.path(service)}}}"

    def tell(self, service, places):
        with open(self.path(service) + ".new", "w", encoding="ascii") as file:
            json.dump(self.endpoints[service], file)
        os.replace(file.name, self.path(service))


class Etcd(Feeder):
    """A key for each endpoint, those of a lot in one transaction for each service. It does not sync: no disk is measured."""

    next_port = 22000

    def begin(self):
        Etcd.next_port += 2
        self.port = Etcd.next_port
        client, peers = (f"http://127.0.0.1:{self.port + i}" for i in range(2))
        command = ["etcd", "--data-dir", os.path.join(self.folder, f"etcd-{self.port}"), "--listen-client-urls", client,
                   "--advertise-client-urls", client, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
                   "--initial-cluster", f"default={peers}"]
        serve(self.stage, command, self.port, self.folder,
              functools.partial(subprocess.Popen, env={**os.environ, "ETCD_UNSAFE_NO_FSYNC": "true"}))
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        super().begin()

    def discover(self, service):
        return f"{{etcd: {{endpoints: ['http://127.0.0.1:{self.port}'], prefix: /bench/{service}}}}}"

    def tell(self, service, places):
        puts = [{"request_put": {"key": text64(f"/bench/{service}/{place}"), "value": text64(self.endpoints[service][place])}}
                for place in places]
        self.connection.request("POST", "/v3/kv/txn", json.dumps({"success": puts}))
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise Failed(f"etcd: {said[:300]!r}")


class Cluster(Feeder):
    """An API server, whose Services are all served: the still ones as well."""

    knows_all = True

    def begin(self):
        self.server = ApiServer(self.folder)
        for number in range(self.still):
            name, address, endpoints = still_service(number)
            self.server.put(service_of(name, address, 80))
            self.server.put(slice_of(name, endpoints))
        for service in range(SERVICES):
            self.server.put(service_of(f"fed-{service}", address_of(service), 80))
        super().begin()
        self.stage.servers.append(self.server)

    def entries(self):
        return [f"  - {{name: cluster, discover: {{kubernetes: {{services: all, kubeconfig: {self.server.kubeconfig}}}}}}}"]

    def name(self, service):
        return f"{SPACE}/fed-{service}:http"

    def told(self):
        return self.server.listed, self.server.streamed

    def tell(self, service, places):
        self.server.put(slice_of(f"fed-{service}", self.endpoints[service]))


def text64(text):
    return base64.b64encode(text.encode()).decode()


FEEDERS = {"files": Files, "etcd": Etcd, "cluster": Cluster}


class Changes(threading.Thread):
    """Has a feeder change so many endpoints a second, in a `with`."""

    def __init__(self, feeder, per_second):
        super().__init__(daemon=True)
        self.feeder, self.lot = feeder, round(per_second * TICK)
        self.over = threading.Event()
        self.made, self.failure = 0, None

    def run(self):
        due = time.monotonic()
        try:
            while not self.over.wait(max(0, due - time.monotonic())):
                self.feeder.change(self.lot)
                self.made += self.lot
                due += TICK
        except Exception as error:  # told by __exit__
            self.failure = error

    def __enter__(self):
        self.begun = time.monotonic()
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.per_second = self.made / (time.monotonic() - self.begun)
        if self.failure is not None:
            raise Failed(f"the source: {self.failure}")
