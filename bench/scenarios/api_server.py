# SPDX-License-Identifier: Apache-2.0
"""An API server of Kubernetes, as much as a scenario needs: it lists Services and EndpointSlices in pages and streams what
changes, over TLS. No real one can be made to change a thousand endpoints a second here; tests/runtimes/kube_apiserver_test.py
asks a real one."""

import base64
import http.server
import itertools
import json
import os
import ssl
import subprocess
import threading
import urllib.parse

from scenarios.servers import installed

SPACE = "bench"
VERSIONS = {"services": "v1", "endpointslices": "discovery.k8s.io/v1"}
KINDS = {"services": "ServiceList", "endpointslices": "EndpointSliceList"}
LISTS = {"/api/v1/services": "services", "/apis/discovery.k8s.io/v1/endpointslices": "endpointslices"}


def service_of(name, cluster_ip, port):
    return {"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": SPACE},
            "spec": {"type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
                     "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}}


def slice_of(service, addresses):
    """`addresses` are "IP:PORT", all with the same port."""
    ips = [address.rpartition(":")[0] for address in addresses]
    port = int(addresses[0].rpartition(":")[2])
    return {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
            "metadata": {"name": f"{service}-1", "namespace": SPACE, "labels": {"kubernetes.io/service-name": service}},
            "endpoints": [{"addresses": [ip], "conditions": {"ready": True}} for ip in ips],
            "ports": [{"name": "http", "port": port, "protocol": "TCP"}]}


class ApiServer:
    """Answers on 127.0.0.1 from begin() to kill(). What is put before is only listed."""

    TOKEN = "bench"

    def __init__(self, folder):
        self.folder = folder
        self.objects = {resource: {} for resource in LISTS.values()}
        self.events = {resource: [] for resource in LISTS.values()}  # (version, line)
        self.version = 1
        self.changed = threading.Condition()
        self.over = False
        self.thread = None
        self.listed = self.streamed = 0  # bytes
        certificate, key = os.path.join(folder, "api.crt"), os.path.join(folder, "api.key")
        subprocess.run([installed("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-days", "2", "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
                        "-out", certificate], stdin=subprocess.DEVNULL, capture_output=True, check=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.http.daemon_threads = True
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        with open(certificate, "rb") as file:
            self.authority = base64.b64encode(file.read()).decode()

    def begin(self):
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def kill(self):
        with self.changed:
            self.over = True
            self.changed.notify_all()
        self.http.shutdown()
        self.http.server_close()

    def wait(self):
        self.thread.join()

    def kubeconfig(self):
        """The path of one that leads here."""
        named = {"cluster": {"server": f"https://127.0.0.1:{self.http.server_port}",
                             "certificate-authority-data": self.authority}}
        with open(os.path.join(self.folder, "kubeconfig"), "w", encoding="ascii") as file:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "bench",
                       "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                       "clusters": [{"name": "bench", **named}],
                       "users": [{"name": "bench", "user": {"token": self.TOKEN}}]}, file)
        return file.name

    def put(self, resource, one):
        with self.changed:
            known = self.objects[resource]
            kind = "MODIFIED" if one["metadata"]["name"] in known else "ADDED"
            self.version += 1
            one["metadata"]["resourceVersion"] = str(self.version)
            known[one["metadata"]["name"]] = one
            if self.thread is not None:
                self.events[resource].append((self.version, kind, one))
            self.changed.notify_all()

    def page(self, resource, query):
        with self.changed:
            first, most = int(query.get("continue") or 0), int(query.get("limit") or 500)
            items = list(itertools.islice(self.objects[resource].values(), first, first + most))
            more = first + most < len(self.objects[resource])
            about = {"resourceVersion": str(self.version), **({"continue": str(first + most)} if more else {})}
            return json.dumps({"kind": KINDS[resource], "apiVersion": VERSIONS[resource],
                               "metadata": about, "items": items}).encode()

    def lines(self, resource, version):
        """What has happened since that version, as it happens."""
        told = 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda known=told: self.over or len(self.events[resource]) > known)
                if self.over:
                    return
                fresh, told = self.events[resource][told:], len(self.events[resource])
            text = "".join(json.dumps({"type": kind, "object": one}) + "\n" for at, kind, one in fresh if at > version)
            if text:
                yield text.encode()

    def handler(self):
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
                resource = LISTS.get(url.path)
                self.send_response(200 if resource else 404)
                self.send_header("Content-Type", "application/json")
                if resource and query.get("watch"):
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    self.stream(server.lines(resource, int(query["resourceVersion"])))
                    return
                body = server.page(resource, query) if resource else b"{}"
                server.listed += len(body)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def stream(self, lines):
                self.close_connection = True
                self.wfile.flush()
                try:
                    for text in lines:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
                        server.streamed += len(text)
                        self.wfile.flush()
                except OSError:
                    pass  # who listened has ended

        return Handler
