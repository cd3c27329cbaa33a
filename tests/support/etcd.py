# SPDX-License-Identifier: Apache-2.0
"""etcd, as Debian has it, on loopback, and what a test says to it by its JSON gateway."""

import base64
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE = 60  # seconds


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def text64(text):
    return base64.b64encode(text.encode()).decode()


class Etcd:
    """One member. `certificate`: the name of NAME.crt and NAME.key in `folder`, and ca.crt: then it speaks TLS."""

    def __init__(self, folder, certificate=None):
        self.folder = os.path.join(folder, f"etcd-{free_port()}")
        self.certificate = certificate and os.path.join(folder, certificate)
        self.authority = os.path.join(folder, "ca.crt")
        self.port, self.peers = free_port(), free_port()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self.process = None
        self.token = None

    def start(self):
        peers = f"http://127.0.0.1:{self.peers}"
        command = ["etcd", "--data-dir", self.folder, "--listen-client-urls", self.url, "--advertise-client-urls",
                   self.url, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster",
                   f"default={peers}"]
        if self.certificate:
            command += ["--cert-file", self.certificate + ".crt", "--key-file", self.certificate + ".key"]
        # Nothing is lost that a power cut could take: this spares the disk.
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, env={**os.environ, "ETCD_UNSAFE_NO_FSYNC": "true"})
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.ask("kv/range", key=text64("none"))
                return
            except urllib.error.HTTPError:
                return  # it asks who we are
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise AssertionError("etcd does not start") from None
            time.sleep(0.02)  # nobody tells when it is ready

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def ask(self, path, **members):
        request = urllib.request.Request(f"{self.url}/v3/{path}", data=json.dumps(members).encode())
        if self.token:
            request.add_header("Authorization", self.token)
        context = ssl.create_default_context(cafile=self.authority) if self.certificate else None
        with urllib.request.urlopen(request, timeout=PATIENCE, context=context) as answer:
            return json.load(answer)

    def put(self, key, value, lease=None):
        """The revision with it."""
        more = {"lease": lease} if lease else {}
        return int(self.ask("kv/put", key=text64(key), value=text64(value), **more)["header"]["revision"])

    def keys(self, prefix):
        """What there is below the prefix, which ends with "/": the gateway's own form, by the rest of the key."""
        answer = self.ask("kv/range", key=text64(prefix), range_end=text64(prefix[:-1] + "0"))
        found = {}
        for pair in answer.get("kvs", []):
            pair["value"] = base64.b64decode(pair.get("value", "")).decode()
            found[base64.b64decode(pair["key"]).decode()[len(prefix):]] = pair
        return found

    def delete(self, key):
        self.ask("kv/deleterange", key=text64(key))

    def lease(self, seconds):
        return self.ask("lease/grant", TTL=seconds)["ID"]

    def put_many(self, pairs):
        pairs, most = list(pairs.items()), 128  # of etcd's, in one transaction
        for i in range(0, len(pairs), most):
            self.ask("kv/txn", success=[{"request_put": {"key": text64(key), "value": text64(value)}}
                                        for key, value in pairs[i:i + most]])

    def enable_auth(self, user, password, prefix, right="READ"):
        """root has the password "root"; `user` may read, or READWRITE, what begins with `prefix`, which ends with "/"."""
        self.ask("auth/user/add", name="root", password="root")
        self.ask("auth/role/add", name="root")
        self.ask("auth/user/grant", user="root", role="root")
        self.ask("auth/user/add", name=user, password=password)
        self.ask("auth/role/add", name="readers")
        self.ask("auth/role/grant", name="readers",
                 perm={"permType": right, "key": text64(prefix), "range_end": text64(prefix[:-1] + "0")})
        self.ask("auth/user/grant", user=user, role="readers")
        self.ask("auth/enable")
        self.log_in()

    def log_in(self):
        """As root, once it asks who we are."""
        self.token = None
        self.token = self.ask("auth/authenticate", name="root", password="root")["token"]
