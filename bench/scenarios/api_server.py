# SPDX-License-Identifier: Apache-2.0
"""An API server of Kubernetes with whatever a scenario needs: its certificate, its kubeconfig, and what services consist of."""

import base64
import json
import os
import subprocess

import kube_objects
from scenarios.servers import installed

SPACE = "bench"


def service_of(name, cluster_ip, port):
    return kube_objects.service_of(name, [cluster_ip], ("http", port), space=SPACE)


def slice_of(service, addresses):
    """`addresses` are "IP:PORT", all with the same port."""
    port = int(addresses[0].rpartition(":")[2])
    return kube_objects.slice_of(f"{service}-1", *(kube_objects.endpoint(address.rpartition(":")[0]) for address in addresses),
                                 port=port, service=service, space=SPACE)


class ApiServer(kube_objects.ObjectServer):
    """Answers on 127.0.0.1 until it is killed."""

    TOKEN = "bench"

    def __init__(self, folder):
        certificate, key = os.path.join(folder, "server.crt"), os.path.join(folder, "server.key")
        subprocess.run([installed("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                        "-nodes", "-days", "2", "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key,
                        "-out", certificate], stdin=subprocess.DEVNULL, capture_output=True, check=True)
        with open(certificate, "rb") as file:
            authority = base64.b64encode(file.read()).decode()
        super().__init__(folder, self.TOKEN)
        self.kubeconfig = os.path.join(folder, "kubeconfig")
        with open(self.kubeconfig, "w", encoding="ascii") as file:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "bench",
                       "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                       "clusters": [{"name": "bench", "cluster": {"server": f"https://127.0.0.1:{self.port}",
                                                                  "certificate-authority-data": authority}}],
                       "users": [{"name": "bench", "user": {"token": self.TOKEN}}]}, file)

    def wait(self):
        """As of a process that was killed."""
