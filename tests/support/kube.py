# SPDX-License-Identifier: Apache-2.0
"""What tests of the kubernetes resolver share: certificates, kubeconfigs, and containers that hand themselves over.

Such a container is a process with a filter of its own that says of itself what containerd's CRI would. It makes one
trapped call, a chmod of nothing, whose errno tells which rule of the agent's configuration holds for it:
ENOENT none (the kernel answers), EBADMSG that of CONFIG, EPERM it is refused.
"""

import array
import base64
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys

from seccomp_listener import make_listener

CHMOD = 90
SKIP = 77
CROWDED = 7332  # the user of a Crowd
UID = "8d6a3ee2-6d3b-4a3e-9b49-2f1c1f3a9b10"
# Only the server knows label and annotation.
CONFIG = """
containers:
- name: by-label
  select: {labels: {app: web}, annotations: {tier: front}}
  handlers: {errors: {chmod: EBADMSG}}
"""


def openssl(*arguments, cwd):
    subprocess.run(["openssl", *arguments], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def make_authority(folder, name):
    """NAME.crt and NAME.key, who sign others."""
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt", cwd=folder)


def sign(folder, authority, name, *places):
    """NAME.crt and NAME.key, for these addresses and names ("IP:127.0.0.1")."""
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr", cwd=folder)
    with open(os.path.join(folder, name + ".ext"), "w", encoding="ascii") as file:
        file.write("subjectAltName = " + ", ".join(places) if places else "extendedKeyUsage = clientAuth\n")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.crt", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt", cwd=folder)


def write_kubeconfig(path, server, authority, user):
    with open(authority, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    with open(path, "w", encoding="utf-8") as file:
        json.dump({  # JSON is YAML
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": data}}],
            "users": [{"name": "test", "user": user}]}, file)


def annotations_of(pod, uid=UID, namespace="prod", container="nginx"):
    """Those that containerd passes on."""
    return {"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": container,
            "io.kubernetes.cri.sandbox-name": pod, "io.kubernetes.cri.sandbox-namespace": namespace,
            "io.kubernetes.cri.sandbox-uid": uid}


class Container:
    def __init__(self, agent_socket, name, annotations, group=None):
        self.name = name
        self.process = subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), agent_socket, group or ""],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(json.dumps({"id": name, "annotations": annotations}) + "\n")
        self.process.stdin.flush()

    def answer(self):
        """The name of its call's errno; waits until somebody answers."""
        line = self.process.stdout.readline().strip()
        return errno.errorcode.get(int(line), line) if line.isdigit() else line

    def has_answer(self):
        import select
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def end(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Crowd:
    """Many containers of one pod at once, of another user's runtime; nobody waits for their answers."""

    def __init__(self, agent_socket, tag, count):
        self.process = subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), agent_socket, "", str(count)],
                                        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, user=CROWDED,
                                        group=CROWDED, extra_groups=[], start_new_session=True)
        for number in range(count):
            self.process.stdin.write(json.dumps({"id": f"crowd{number}-{tag}", "annotations": annotations_of("web-1")}) +
                                     "\n")
        self.process.stdin.flush()

    def end(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait()


def be_many_containers(path, count):
    for told in [sys.stdin.readline() for _ in range(count)]:
        if os.fork() == 0:
            be_a_container(path, "", told)
            return
    for _ in range(count):
        os.wait()


def be_a_container(path, group, told=None):
    told = json.loads(told or sys.stdin.readline())
    if group:
        with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write("0")
    libc, listener = ctypes.CDLL(None, use_errno=True), make_listener(CHMOD)
    pid = os.getpid()
    state = {"ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": pid,
             "state": {"ociVersion": "1.0.2", "id": told["id"], "status": "creating", "pid": pid, "bundle": "/",
                       "annotations": told["annotations"]}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.connect(path)
        agent.sendmsg([json.dumps(state).encode()],
                      [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    result = libc.syscall(CHMOD, b"/nothing/there", 0o700)
    print(ctypes.get_errno() if result < 0 else "done", flush=True)
    sys.stdin.read()  # lives until it is told


if __name__ == "__main__":
    if len(sys.argv) > 3:
        be_many_containers(sys.argv[1], int(sys.argv[3]))
    else:
        be_a_container(*sys.argv[1:3])
