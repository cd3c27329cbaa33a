#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The Kinvolk agent's demo on Kubernetes, with containerd's CRI in the place of a kubelet's node: cri_test.py SHUNT.

What a kubelet would do is done here: it asks containerd over gRPC for a pod and a container in it, with a profile of
`shunt profile`, and executes programs in it (`kubectl exec`).
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest

try:
    import grpc
except ImportError:
    grpc = None

ARENA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "arena")
BUSYBOX = "/usr/bin/busybox"
BASE = "/usr/share/containers/seccomp.json"
IMAGE = "docker.io/library/busybox:latest"
PATIENCE = 40  # seconds
SKIP = 77
SHUNT = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ""
NODE = 2  # NamespaceMode: the host's own
LOCALHOST = 2  # SecurityProfile.ProfileType
NAMES = ["openat", "open", "mkdir", "mount", "chmod"]  # that the profile of the demo traps
METADATA = ["MKDIR_TMPL=-{{.Namespace}}-{{.Pod}}-{{.Container}}", "EXEC_PATTERN=/bin/true", "EXEC_DURATION=2s"]


# ---- protocol buffers, as far as the CRI's messages here need them: varints and what has a length

def varint(number):
    out = bytearray()
    while number > 0x7f:
        out.append(number & 0x7f | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(fields):
    """{number: value}: an int, text, a dictionary (a message), or a list of those (repeated)."""
    out = b""
    for number, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, int):
                out += varint(number << 3) + varint(value)
                continue
            data = encode(value) if isinstance(value, dict) else value.encode()
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decode(data):
    """{number: the last int or bytes}"""
    def read_varint(at):
        number = shift = 0
        while True:
            number |= (data[at] & 0x7f) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                return number, at

    fields = {}
    at = 0
    while at < len(data):
        key, at = read_varint(at)
        value, at = read_varint(at)
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        fields[key >> 3] = value
    return fields


class Node:
    """containerd with its CRI, and what it needs, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.address = os.path.join(folder, "containerd.sock")
        config = os.path.join(folder, "containerd.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'''version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{self.address}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
''')
        self.log = open(os.path.join(folder, "containerd.log"), "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(["containerd", "-c", config], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        self.channel = grpc.insecure_channel("unix:" + self.address)
        grpc.channel_ready_future(self.channel).result(PATIENCE)

    def stop(self):
        self.channel.close()
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()

    def call(self, name, request):
        method = self.channel.unary_unary("/runtime.v1.RuntimeService/" + name, request_serializer=encode,
                                          response_deserializer=decode)
        return method(request, timeout=PATIENCE)

    def import_image(self, archive):
        # The CRI learns of images by namespace and by events.
        subprocess.run(["ctr", "-a", self.address, "-n", "k8s.io", "image", "import", "--snapshotter", "native",
                        archive], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)
        end = time.monotonic() + PATIENCE
        images = self.channel.unary_unary("/runtime.v1.ImageService/ImageStatus", request_serializer=encode,
                                          response_deserializer=decode)
        while 1 not in images({1: {1: IMAGE}}, timeout=PATIENCE):
            if time.monotonic() > end:
                raise AssertionError("containerd's CRI does not see the image")
            time.sleep(0.01)


def write_image(path):
    """An image of busybox, for the pod's sandbox and for its container: an archive in OCI's layout."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox")
        for applet in ("sh", "mkdir", "chmod", "sleep", "echo", "ls", "true", "time"):
            entry = tarfile.TarInfo("bin/" + applet)
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)

    with tarfile.open(path, "w") as archive:
        def add(name, data):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        def add_blob(kind, data, **more):
            digest = hashlib.sha256(data).hexdigest()
            add("blobs/sha256/" + digest, data)
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": "sha256:" + digest, "size": len(data),
                    **more}

        data = layer.getvalue()
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sleep", "1000000"], "Env": ["PATH=/bin"]},
                  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest()]}}
        manifest = {"schemaVersion": 2, "config": add_blob("config.v1+json", json.dumps(config).encode()),
                    "layers": [add_blob("layer.v1.tar", data)]}
        described = add_blob("manifest.v1+json", json.dumps(manifest).encode(),
                             annotations={"io.containerd.image.name": IMAGE})
        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add("index.json", json.dumps({"schemaVersion": 2, "manifests": [described]}).encode())


class CriTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.group = "shunt-cri-" + os.path.basename(self.folder)  # runtimes make control groups machine-wide
        self.addCleanup(self.remove_control_groups)
        self.agent_log = open(os.path.join(self.folder, "agent.log"), "w+", encoding="utf-8")
        self.addCleanup(self.agent_log.close)
        self.socket = os.path.join(self.folder, "agent.sock")
        ready, ready_write = os.pipe()
        agent = subprocess.Popen([SHUNT, "agent", "--verbose", "--resolver", "kubernetes", "--socket", self.socket,
                                  "--ready-fd", str(ready_write)], stdin=subprocess.DEVNULL, stderr=self.agent_log,
                                 pass_fds=[ready_write])
        self.addCleanup(agent.wait, PATIENCE)
        self.addCleanup(agent.terminate)
        os.close(ready_write)
        with open(ready, "rb") as pipe:
            self.assertEqual(pipe.read(), b"\x01", self.text(self.agent_log))
        self.node = Node(self.folder)
        self.addCleanup(self.node.stop)
        image = os.path.join(self.folder, "image.tar")
        write_image(image)
        self.node.import_image(image)

    @staticmethod
    def text(file):
        file.flush()
        file.seek(0)
        return file.read()

    def remove_control_groups(self):
        for tree in os.listdir("/sys/fs/cgroup"):
            path = os.path.join("/sys/fs/cgroup", tree, self.group)
            if os.path.isdir(path):
                os.rmdir(path)

    def start_pod(self, namespace, pod, container, profile):
        """The id of a container that sleeps, in a pod of its own."""
        metadata = {1: pod, 2: "8d6a3ee2-6d3b-4a3e-9b49-2f1c1f3a9b10", 3: namespace, 4: 0}
        config = {1: metadata, 8: {1: "/" + self.group, 2: {1: {1: NODE}}}}
        sandbox = self.node.call("RunPodSandbox", {1: config})[1].decode()
        self.addCleanup(self.node.call, "RemovePodSandbox", {1: sandbox})
        self.addCleanup(self.node.call, "StopPodSandbox", {1: sandbox})
        security = {3: {1: NODE}, 15: {1: LOCALHOST, 2: profile}}
        request = {1: sandbox, 3: config,
                   2: {1: {1: container}, 2: {1: IMAGE}, 3: ["sh"], 4: ["-c", "sleep 1000000"], 15: {2: security}}}
        name = self.node.call("CreateContainer", request)[1].decode()
        self.node.call("StartContainer", {1: name})
        return name

    def execute(self, container, command):
        """What `kubectl exec CONTAINER -- /bin/sh -c COMMAND` prints."""
        result = self.node.call("ExecSync", {1: container, 2: ["/bin/sh", "-c", "exec 2>&1; " + command], 3: 20})
        self.assertEqual(result.get(3, 0), 0, result)
        return result.get(1, b"").decode()

    def test_the_demo_on_kubernetes(self):
        profile = os.path.join(self.folder, "notify.json")
        with open(profile, "w", encoding="utf-8") as file:
            subprocess.run([SHUNT, "profile", "--base", BASE, "--listener", self.socket, "--handler", "mkdir",
                            "--handler", "exec", "--fail", "chmod=EBADMSG",
                            *[word for line in METADATA for word in ("--metadata", line)]],
                           stdin=subprocess.DEVNULL, stdout=file, timeout=PATIENCE, check=True)
        container = self.start_pod("default", "mynotifypod", "container1", profile)
        self.assertIn("it is container container1 of pod default/mynotifypod", self.text(self.agent_log))
        self.assertEqual(self.execute(container, "mkdir /abc; ls -1d /abc*"), "/abc-default-mynotifypod-container1\n")
        self.assertRegex(self.execute(container, 'time -f %E /bin/echo -n ""; time -f %E /bin/true'),
                         r"\A0m 0\.[0-9]+s\n0m 2\.[0-9]+s\n\Z")
        self.assertEqual(self.execute(container, "chmod 777 / || true"), "chmod: /: Bad message\n")

        # While /bin/true waits, others of the container go on, of the same exec and of another one.
        delayed = {}
        thread = threading.Thread(target=lambda: delayed.update(
            said=self.execute(container, "read before rest </proc/uptime; mkdir /tmp/begun; /bin/true; "
                                         "read after rest </proc/uptime; echo $before $after")))
        thread.start()
        beside = self.execute(container, "until [ -d /tmp/begun-default-mynotifypod-container1 ]; do :; done; "
                                         "for i in 1 2 3 4 5; do mkdir /tmp/beside$i; done; ls -d /tmp/beside*; "
                                         "read now rest </proc/uptime; echo $now").split()
        thread.join()
        self.assertEqual(beside[:-1], [f"/tmp/beside{i}-default-mynotifypod-container1" for i in range(1, 6)])
        before, after = map(float, delayed["said"].split())
        self.assertGreaterEqual(after - before, 1.99)  # /proc/uptime has two digits
        self.assertLess(float(beside[-1]), after)

    def test_a_profile_that_was_written_for_the_kinvolk_agent(self):
        profile = os.path.join(self.folder, "notify.json")
        with open(profile, "w", encoding="utf-8") as file:
            json.dump({"architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "defaultAction": "SCMP_ACT_ALLOW",
                       "listenerPath": self.socket, "listenerMetadata": "\n".join([*METADATA, "MOUNT_PROC=true"]),
                       "syscalls": [{"action": "SCMP_ACT_NOTIFY", "names": NAMES}]},
                      file)
        container = self.start_pod("default", "mynotifypod", "container1", profile)
        self.assertEqual(self.execute(container, "mkdir /abc; ls -1d /abc*; chmod 777 / && echo changed"),
                         "/abc-default-mynotifypod-container1\nchanged\n")


def run():
    if not os.path.exists(BASE):
        print(f"skipped: {BASE}, which podman brings, is not there")
        return SKIP
    for program in ("containerd", "ctr", "containerd-shim-runc-v2", "runc", BUSYBOX):
        if shutil.which(program) is None:
            print(f"skipped: {program} is not installed")
            return SKIP
    if grpc is None:
        print("skipped: python3-grpcio is not installed")
        return SKIP
    if "--inside" not in sys.argv:
        return subprocess.run([ARENA, "--", sys.executable, *sys.argv, "--inside"], check=False).returncode
    # containerd leaves things there: this one goes with the arena.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"], check=True)
    return 0 if unittest.main(argv=[sys.argv[0], "-v"], exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(run())
