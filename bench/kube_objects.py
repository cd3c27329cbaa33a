# SPDX-License-Identifier: Apache-2.0
"""An API server over TLS that knows Services and EndpointSlices, and lists and watches them as the real one does.

Tests have it misbehave (tests/services); a benchmark has it change a thousand endpoints a second (scenarios/api_server.py), so
what it does for a list and for a change must not grow with what it knows or has said. tests/runtimes/kube_apiserver_test.py asks
a real one.
"""

import bisect
import http.server
import json
import os
import re
import socket
import ssl
import threading
import urllib.parse

PATH = re.compile(r"/(api/v1|apis/discovery\.k8s\.io/v1)(?:/namespaces/([^/]+))?/(services|endpointslices)")
KINDS = {"services": ("Service", "v1"), "endpointslices": ("EndpointSlice", "discovery.k8s.io/v1")}
LABEL = "kubernetes.io/service-name"
PATIENCE = 20  # seconds


def endpoint(address, **more):
    return {"addresses": [address], "conditions": {"ready": True}, **more}


def slice_of(name, *endpoints, port=80, service="orders", space="default", **more):
    return {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": space, "labels": {LABEL: service},
                         "managedFields": [{"manager": "kube-controller-manager"}]},
            "endpoints": list(endpoints), "ports": [{"name": "http", "port": port, "protocol": "TCP"}], **more}


def service_of(name, ips, *ports, space="default", labels=None, **spec):
    """`ports` are (name, number) or (name, number, protocol)."""
    return {"kind": "Service", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": space, "labels": labels or {}},
            "spec": {"type": "ClusterIP", "clusterIP": ips[0] if ips else "None", "clusterIPs": ips or ["None"],
                     "ports": [{"name": port[0], "port": port[1], "protocol": (*port, "TCP")[2]} for port in ports], **spec}}


def name_of(one):
    """A name without a namespace is one of the namespace default, as for kubectl."""
    return f"{one['metadata'].get('namespace', 'default')}/{one['metadata'].get('name')}"


def selected(one, selector):
    labels = one["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        key, equal, value = term.partition("=")
        if (labels.get(key) != value) if equal else (key[1:] in labels):
            return False
    return True


def status(code, message):
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code}


class ObjectServer:
    """Starts at once; can be killed, and started again at the same port with what it knew.

    `requests` are (whether it is a watch, its query, the header Authorization); a query has beside its own words
    "resource", what was asked for. `refusals` are (code, message, headers), each of which answers one request.
    """

    def __init__(self, folder, token):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(os.path.join(folder, "server.crt"), os.path.join(folder, "server.key"))
        self.token = token
        self.page = 500  # objects
        self.lists_answered = threading.Event()  # not set: they have to wait
        self.lists_answered.set()
        self.changed = threading.Condition()
        self.requests = []
        self.refusals = []
        self.objects = {resource: {} for resource in KINDS}  # by name
        self.version = 100
        self.oldest = 0  # what has happened before is forgotten
        self.events = []  # (version, resource, namespace, line)
        self.said = []  # (resource, line), for watches under way
        self.found = {}  # what was listed last: {(resource, space, selector): (version, objects)}
        self.listed = self.streamed = 0  # bytes
        self.ending = 0  # of watches: how often; `breaking`, without a word
        self.breaking = 0
        self.watches = 0  # under way
        self.http = self.thread = None
        self.connections = set()
        self.port = 0
        self.start()

    # ---- what a test does

    def start(self):
        server = self

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # who asked has had enough

            def process_request_thread(self, request, client_address):
                server.connections.add(request)
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    server.connections.discard(request)

        self.http = Threads(("127.0.0.1", self.port), self.handler())
        self.http.socket = self.context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.http.server_port
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def kill(self):
        """Nothing listens afterwards, and no connection is left."""
        if self.http is None:
            return
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
        self.http = None
        for connection in list(self.connections):
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass  # it has gone by itself
        with self.changed:
            self.breaking += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.watches == 0, PATIENCE)

    def put(self, one):
        resource, = [key for key, (kind, _) in KINDS.items() if kind == one["kind"]]
        self._happens("MODIFIED" if name_of(one) in self.objects[resource] else "ADDED", resource, one)

    def remove(self, name, resource="endpointslices"):
        self._happens("DELETED", resource, self.objects[resource][name if "/" in name else "default/" + name])

    def bookmark(self, resource="endpointslices"):
        kind, version = KINDS[resource]
        self._happens("BOOKMARK", resource, {"kind": kind, "apiVersion": version, "metadata": {}})

    def say(self, line, resource="endpointslices"):
        """In all watches of these that are under way."""
        with self.changed:
            self.said.append((resource, line))
            self.changed.notify_all()

    def end_watches(self, *, broken=False):
        with self.changed:
            self.breaking += broken
            self.ending += not broken
            self.changed.notify_all()

    def forget(self):
        """What has happened until now, as when etcd is compacted."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.events.clear()

    def wait_for(self, condition):
        """`condition` holds, or comes to hold."""
        with self.changed:
            return self.changed.wait_for(condition, PATIENCE)

    def wait_for_watch(self, count, resources=("endpointslices",)):
        """As many watches of each have been asked for, and the last ones are under way."""
        return self.wait_for(lambda: self.watches == len(resources) and
                             all(len(self.versions_watched(one)) >= count for one in resources))

    def versions_watched(self, resource="endpointslices"):
        return [int(query["resourceVersion"]) for watch, query, _ in list(self.requests)
                if watch and query["resource"] == resource]

    def lists(self, resource="endpointslices"):
        return [query for watch, query, _ in list(self.requests) if not watch and query["resource"] == resource]

    def select(self, resource, space, selector, of):
        """(version, objects by name) of a namespace, or of all. `of`: the version of a list that goes on, or None. It goes on with what
        there was when it began, as the real one has it, and is sorted once."""
        with self.changed:
            version, found = self.found.get((resource, space, selector), (None, None))
            if of is None or of != version:
                version, found = self.version, [
                    {key: value for key, value in one.items() if key not in ("kind", "apiVersion")}
                    for _, one in sorted(self.objects[resource].items())
                    if space in (None, one["metadata"].get("namespace", "default")) and selected(one, selector)]
                self.found[resource, space, selector] = version, found
            return version, found

    def _happens(self, kind, resource, one):
        with self.changed:
            self.version += 1
            one["metadata"]["resourceVersion"] = str(self.version)
            if kind == "DELETED":
                del self.objects[resource][name_of(one)]
            elif kind != "BOOKMARK":
                self.objects[resource][name_of(one)] = one
            self.events.append((self.version, resource, None if kind == "BOOKMARK" else one["metadata"]["namespace"],
                                json.dumps({"type": kind, "object": one})))
            self.changed.notify_all()

    # ---- what it does

    def handler(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
                path = PATH.fullmatch(url.path)
                query["resource"], self.space = (path[3], path[2]) if path else (None, None)
                with server.changed:
                    server.requests.append(("watch" in query, query, self.headers["Authorization"]))
                    refusal = server.refusals.pop(0) if server.refusals else None
                    server.changed.notify_all()
                if refusal is not None:
                    self.answer(refusal[0], status(*refusal[:2]), refusal[2])
                elif self.headers["Authorization"] != f"Bearer {server.token}":
                    self.answer(401, status(401, "Unauthorized"))
                elif path is None or not KINDS[path[3]][1] in path[1]:
                    self.answer(404, status(404, "the server could not find the requested resource"))
                elif "watch" in query:
                    self.watch(query)
                else:
                    self.list(query)

            def answer(self, code, body, headers=()):
                text = json.dumps(body).encode()
                self.send_response(code)
                for key, value in dict(headers).items():
                    self.send_header(key, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                server.listed += len(text)
                self.wfile.write(text)

            def list(self, query):
                server.lists_answered.wait()
                kind, api = KINDS[query["resource"]]
                begin, of = map(int, query["continue"].split()) if "continue" in query else (0, None)
                version, found = server.select(query["resource"], self.space, query["labelSelector"], of)
                of = version if of is None else of
                if of < server.oldest:
                    self.answer(410, status(410, "The provided continue parameter is too old"))
                    return
                end = begin + min(server.page, int(query["limit"])) if "limit" in query else len(found)
                self.answer(200, {"kind": kind + "List", "apiVersion": api,
                                  "metadata": {"resourceVersion": str(of),
                                               **({"continue": f"{end} {of}"} if end < len(found) else {})},
                                  "items": found[begin:end]})

            def watch(self, query):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                since = int(query["resourceVersion"])
                with server.changed:
                    if since < server.oldest:
                        gone = status(410, f"too old resource version: {since} ({server.oldest})")
                        self.send_lines([json.dumps({"type": "ERROR", "object": gone})])
                        self.wfile.write(b"0\r\n\r\n")
                        return
                    ending, breaking, said = server.ending, server.breaking, len(server.said)
                    server.watches += 1
                    server.changed.notify_all()
                try:
                    while (lines := self.next_lines(query["resource"], since, said, ending, breaking)) is not None:
                        self.send_lines([line for _, line in lines if line is not None])
                        for version, _ in lines:
                            since, said = (version, said) if version else (since, said + 1)
                    if server.breaking == breaking:
                        self.wfile.write(b"0\r\n\r\n")
                    else:
                        self.close_connection = True
                finally:
                    with server.changed:
                        server.watches -= 1
                        server.changed.notify_all()

            def next_lines(self, resource, since, said, ending, breaking):
                """[(version or 0, line, or None if it is for others)]; None: no more."""
                def there():
                    fresh = server.events[bisect.bisect_right(server.events, since, key=lambda event: event[0]):]
                    return ([(version, line if resource == of and (None in (self.space, space) or self.space == space)
                              else None) for version, of, space, line in fresh] +
                            [(0, line if resource == of else None) for of, line in server.said[said:]])

                def over():
                    return (ending, breaking) != (server.ending, server.breaking)

                with server.changed:
                    # Nobody tells when the other side has gone, but a look at the connection does.
                    while not server.changed.wait_for(lambda: there() or over(), 0.05):
                        if self.has_gone():
                            return None
                    return None if over() else there()

            def has_gone(self):
                try:
                    self.connection.setblocking(False)
                    return self.connection.recv(1) == b""
                except (ssl.SSLWantReadError, BlockingIOError):
                    return False
                except OSError:
                    return True
                finally:
                    self.connection.setblocking(True)

            def send_lines(self, lines):
                text = "".join(line + "\n" for line in lines).encode()
                if text:
                    server.streamed += len(text)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

        return Handler
