# SPDX-License-Identifier: Apache-2.0
"""KubeCase: services that an API server of Kubernetes tells of, which answers as the real one does.

tests/runtimes/kube_apiserver_test.py asks a real one.
"""

import os
import shutil
import sys
import tempfile

from service_case import ServiceCase  # (it leads to those below)
import kube
from kube_objects import ObjectServer
from runtime_case import main


class KubeCase(ServiceCase):
    @classmethod
    def setUpClass(cls):
        cls.certificates = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, cls.certificates)
        kube.make_authority(cls.certificates, "ca")
        kube.sign(cls.certificates, "ca", "server", "IP:127.0.0.1")

    def setUp(self):
        super().setUp()
        self.server = ObjectServer(self.certificates, "first")
        self.addCleanup(self.server.kill)
        self.write_token("first")
        self.kubeconfig = os.path.join(self.folder, "kubeconfig")
        kube.write_kubeconfig(self.kubeconfig, f"https://127.0.0.1:{self.server.port}",
                              os.path.join(self.certificates, "ca.crt"), {"tokenFile": "token"})

    def write_token(self, token):
        path = os.path.join(self.folder, "token")
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(token + "\n")
        os.rename(path + ".new", path)


def run():
    for program in ("nginx", "openssl"):
        if shutil.which(program) is None:
            print(f"skipped: {program} is not installed (tools/install-packages test)")
            sys.exit(77)
    sys.exit(main())
