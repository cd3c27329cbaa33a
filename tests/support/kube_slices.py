# SPDX-License-Identifier: Apache-2.0
"""An API server over TLS that knows nothing but EndpointSlices, and lists and watches them as the real one does."""

import http.server
import json
import os
import socket
import ssl
import threading
import urllib.parse

API = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
LABEL = "kubernetes.io/service-name"
PATIENCE = 20  # seconds


def endpoint(address, **more):
    return {"addresses": [address], "conditions": {"ready": True}, **more}


def slice_of(name, *endpoints, port=80, service="orders", **more):
    return {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "default", "labels": {LABEL: service},
                         "managedFields": [{"manager": "kube-controller-manager"}]},
            "endpoints": list(endpoints), "ports": [{"name": "http", "port": port, "protocol": "TCP"}], **more}


def status(code, message):
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code}


class SliceServer:
    """Starts at once; can be killed, and started again at the same port with what it knew.

    `requests` are (whether it is a watch, its query, the header Authorization). `refusals` are (code, message, headers),
    each of which answers one request.
    """

    def __init__(self, folder, token):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(os.path.join(folder, "server.crt"), os.path.join(folder, "server.key"))
        self.token = token
        self.page = 500  # slices
        self.changed = threading.Condition()
        self.requests = []
        self.refusals = []
        self.slices = {}
        self.version = 100
        self.oldest = 0  # what has happened before is forgotten
        self.events = []  # (version, line)
        self.said = []  # lines for watches under way
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
        self._happens("MODIFIED" if one["metadata"]["name"] in self.slices else "ADDED", one)

    def remove(self, name):
        self._happens("DELETED", self.slices[name])

    def bookmark(self):
        self._happens("BOOKMARK", {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {},
                                   "endpoints": None, "addressType": ""})

    def say(self, line):
        """In all watches under way."""
        with self.changed:
            self.said.append(line)
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

    def wait_for_watch(self, count):
        """As many watches have been asked for, and the last one is under way."""
        return self.wait_for(lambda: len(self.versions_watched()) >= count and self.watches == 1)

    def versions_watched(self):
        return [int(query["resourceVersion"]) for watch, query, _ in list(self.requests) if watch]

    def lists(self):
        return [query for watch, query, _ in list(self.requests) if not watch]

    def _happens(self, kind, one):
        with self.changed:
            self.version += 1
            one["metadata"]["resourceVersion"] = str(self.version)
            name = one["metadata"].get("name")
            if kind == "DELETED":
                del self.slices[name]
            elif kind != "BOOKMARK":
                self.slices[name] = one
            self.events.append((self.version, json.dumps({"type": kind, "object": one})))
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
                with server.changed:
                    server.requests.append(("watch" in query, query, self.headers["Authorization"]))
                    refusal = server.refusals.pop(0) if server.refusals else None
                    server.changed.notify_all()
                if refusal is not None:
                    self.answer(refusal[0], status(*refusal[:2]), refusal[2])
                elif self.headers["Authorization"] != f"Bearer {server.token}":
                    self.answer(401, status(401, "Unauthorized"))
                elif url.path != API:
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
                self.wfile.write(text)

            def list(self, query):
                label, service = query["labelSelector"].split("=")
                with server.changed:
                    found = [one for _, one in sorted(server.slices.items()) if one["metadata"]["labels"][label] == service]
                    version, oldest = server.version, server.oldest
                begin, of = (int(part) for part in query.get("continue", f"0 {version}").split())
                if of < oldest:
                    self.answer(410, status(410, "The provided continue parameter is too old"))
                    return
                end = begin + min(server.page, int(query["limit"])) if "limit" in query else len(found)
                self.answer(200, {"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
                                  "metadata": {"resourceVersion": str(of),
                                               **({"continue": f"{end} {of}"} if end < len(found) else {})},
                                  "items": [{k: v for k, v in one.items() if k not in ("kind", "apiVersion")}
                                            for one in found[begin:end]]})

            def watch(self, query):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                since = int(query["resourceVersion"])
                with server.changed:
                    if since < server.oldest:
                        gone = status(410, f"too old resource version: {since} ({server.oldest})")
                        self.send_line(json.dumps({"type": "ERROR", "object": gone}))
                        self.wfile.write(b"0\r\n\r\n")
                        return
                    ending, breaking, said = server.ending, server.breaking, len(server.said)
                    server.watches += 1
                    server.changed.notify_all()
                try:
                    while (lines := self.next_lines(since, said, ending, breaking)) is not None:
                        for version, line in lines:
                            self.send_line(line)
                            since, said = (version, said) if version else (since, said + 1)
                    if server.breaking == breaking:
                        self.wfile.write(b"0\r\n\r\n")
                    else:
                        self.close_connection = True
                finally:
                    with server.changed:
                        server.watches -= 1
                        server.changed.notify_all()

            def next_lines(self, since, said, ending, breaking):
                """[(version or 0, line)]; None: no more."""
                def there():
                    return ([one for one in server.events if one[0] > since] +
                            [(0, line) for line in server.said[said:]])

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

            def send_line(self, line):
                text = line.encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))

        return Handler
