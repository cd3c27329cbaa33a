#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real programs that mount and make devices, in real containers in which they cannot without `shunt agent`.

    mount_real_test.py --agent PROGRAM --guest TUN_ECHO --runtime runc|crun --as root|user

As root: containers of the runtime, each in a user namespace of its own, and an agent of root. As an ordinary user: rootless
containers of the runtime, and of Podman with it, and an agent of that user. No container has CAP_SYS_ADMIN; each program runs
without shunt first, which has to fail as it does for everybody.
"""

import json
import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True

from runtime_case import ARGS, BUSYBOX, RuntimeCase, main  # noqa: E402

PATIENCE = 60  # seconds
OWNER = 700000  # of root's containers: the host's number of their root
CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_ADMIN",
                "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"]
ROOTLESSKIT = "mkdir -p /tmp/x; rootlesskit --state-dir=/tmp/x/state --pidns --copy-up=/etc --copy-up=/run "
POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'
DOCKERFILE = """FROM scratch
COPY busybox /bin/sh
COPY busybox /bin/cat
RUN echo made >/made; echo step $$
"""


def programs_and_libraries(*names):
    """The files that these programs of the host need."""
    for name in names:
        program = shutil.which(name)
        yield program
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        yield from re.findall(r"/[^ ]+", said.replace(program + ":", ""))


class Programs(RuntimeCase):
    """The programs. Where they run is a subclass's: run_program()."""

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o755)
        for name in ("root", "run", "var/tmp", "work"):
            os.makedirs(os.path.join(self.rootfs, name))
        for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if not os.path.lexists(os.path.join(self.rootfs, "bin", applet)):
                os.symlink("busybox", os.path.join(self.rootfs, "bin", applet))
        self.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.write("etc/hosts", "127.0.0.1 localhost\n")
        self.write("etc/group", "root:x:0:\n")
        for name in ("subuid", "subgid"):
            self.write(f"etc/{name}", "root:1:60000\n")

    def write(self, name, text):
        path = os.path.join(self.rootfs, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def install(self, *names):
        for name in names:
            if shutil.which(name) is None:
                self.skipTest(f"{name} is not installed")
        for path in programs_and_libraries(*names):
            copy = self.rootfs + path
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copy(path, copy)  # not its set-user-id bit: root needs none
            own_of_busybox = os.path.join(self.rootfs, "bin", os.path.basename(path))
            if os.path.islink(own_of_busybox):
                os.unlink(own_of_busybox)

    def run_both(self, program, *metadata):
        """What the program has said in a container without shunt, and in one of the agent's."""
        program = f"exec 2>&1; export HOME=/root USER=root XDG_RUNTIME_DIR=/tmp/x; {program}"
        agent = self.start_agent()
        written = subprocess.run(
            [ARGS.agent, "profile", "--listener", agent.socket, "--handler", "mount", "--handler", "mknod",
             *(word for one in metadata for word in ("--metadata", one))], capture_output=True, text=True, check=True)
        without = self.run_program("without", program, None)
        said = self.run_program("served", program, written.stdout)
        agent.stop()
        self.log = said + "".join(agent.lines)
        return without, said

    # ---- proc

    def test_rootlesskit_sees_its_own_processes_behind_the_masks(self):
        self.install("rootlesskit", "newuidmap", "newgidmap")
        # Its own process is the first of the namespace; the container's shell is that of the container's.
        look = ("cat /proc/1/comm; test -c /proc/keys && echo masked; echo x >/proc/sys/kernel/domainname; "
                "cut -c1-22 /proc/self/uid_map")
        without, said = self.run_both(ROOTLESSKIT + f"sh -c '{look}'", "MOUNT_PROC=true")
        self.assertIn("failed to mount procfs: operation not permitted", without)
        self.assertNotIn("procfs", said, self.log)
        self.assertEqual(said.splitlines()[-5:], [
            "exe", "masked", "sh: can't create /proc/sys/kernel/domainname: Read-only file system",
            "         0          0 ", "         1          1 "], self.log)

    def test_buildah_builds_an_image(self):
        self.install("buildah", "newuidmap", "newgidmap", "runc", "crun")
        self.write("etc/containers/policy.json", POLICY)
        self.write("work/Dockerfile", DOCKERFILE)
        shutil.copy(BUSYBOX, os.path.join(self.rootfs, "work"))
        for isolation, runtime in ("oci", "runc"), ("rootless", "crun"):
            program = (f"export BUILDAH_RUNTIME={runtime}; cd /work; "
                       f"buildah --storage-driver vfs build --network host --isolation {isolation} -t built . && "
                       "container=$(buildah --storage-driver vfs from localhost/built) && "
                       f"buildah --storage-driver vfs run --network host --isolation {isolation} $container cat /made; "
                       "rm -r /var/lib/containers")
            with self.subTest(isolation=isolation, runtime=runtime):
                without, said = self.run_both(program, "MOUNT_PROC=true")
                self.assertRegex(without, r"(?s)step \$\$.*mount.*proc.*[Oo]peration not permitted")
                self.assertRegex(said, r"(?s)\nstep 1\nCOMMIT.*Successfully tagged localhost/built:latest.*\nmade\n\Z")

    def test_podman_runs_a_container(self):
        self.install("podman", "conmon", "newuidmap", "newgidmap", "runc", "crun")
        self.write("etc/containers/policy.json", POLICY)
        # What it sets unless told otherwise lies behind a mask (/proc/sys).
        self.write("etc/containers/containers.conf", "[containers]\ndefault_sysctls = []\n")
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "run"):
            os.makedirs(os.path.join(self.rootfs, "inner", name))
        for name in ("sh", "ls"):
            shutil.copy(BUSYBOX, os.path.join(self.rootfs, "inner", "bin", name))
        for runtime in "runc", "crun":
            program = ("mkdir -p /tmp/x; podman --storage-driver vfs --cgroup-manager cgroupfs "
                       f"--runtime {runtime} run --network none --rootfs /inner sh -c 'echo process $$; ls /sys/class/net'")
            with self.subTest(runtime=runtime):
                without, said = self.run_both(program, "MOUNT_PROC=true", "MOUNT_SYSFS=true")
                self.assertRegex(without, r"mount.*proc.*[Oo]peration not permitted")
                self.assertRegex(said, r"process 1\nlo\n\Z", self.log)

    # ---- devices

    def test_a_tun_device_passes_packets(self):
        shutil.copy(ARGS.guest, os.path.join(self.rootfs, "bin", "tun_echo"))
        without, said = self.run_both("mkdir /dev/net; mknod /dev/net/tun c 10 200; tun_echo", "MKNOD=/dev/net/tun")
        self.assertEqual(without.splitlines()[-2:], ["mknod: /dev/net/tun: Operation not permitted",
                                                     "/dev/net/tun: No such file or directory"])
        self.assertEqual(said, "tun0: there and back\n", self.log)

    def test_rootlesskit_has_slirp4netns_make_its_network(self):
        self.install("rootlesskit", "newuidmap", "newgidmap", "slirp4netns", "ip", "nsenter")
        program = ("mkdir /dev/net; mknod /dev/net/tun c 10 200; " + ROOTLESSKIT +
                   "--net=slirp4netns --mtu=65520 --disable-host-loopback sh -c 'ip -o -4 addr show tap0; ls /sys/class/net'")
        without, said = self.run_both(program, "MOUNT_PROC=true", "MOUNT_SYSFS=true", "MKNOD=/dev/net/tun")
        self.assertIn("setting up tap tap0", without)
        self.assertRegex(said, r"inet 10\.0\.2\.100/24 .* tap0.*\nlo\ntap0\n\Z", self.log)

    def test_fuse_overlayfs_is_mounted(self):
        self.install("fuse-overlayfs")
        mounted = ("fuse-overlayfs -o lowerdir=low,upperdir=up,workdir=work merged && echo written >merged/new && "
                   "cat merged/old merged/new && grep -c fuse.fuse-overlayfs /proc/self/mounts && umount merged")
        program = ("mknod /dev/fuse c 10 229; cd /tmp; mkdir low up work merged; echo old >low/old; "
                   f"unshare -Urm sh -c '{mounted}' && cat up/new; rm -r low up work merged")
        # To name it is of no use: whoever may mount it has the kernel do so, by a descriptor of its own.
        without, said = self.run_both(program, "MKNOD=/dev/fuse", "MOUNT_OTHER_FS_LIST=fuse,fuse.fuse-overlayfs")
        self.assertIn("fuse: device not found", without)
        self.assertEqual(said.splitlines()[-4:], ["old", "written", "1", "written"], self.log)


class InRuntimeTest(Programs):
    """Containers of runc and crun, as root with a user namespace of their own, else rootless."""

    def run_program(self, name, program, profile):
        def change(config):
            linux, process = config["linux"], config["process"]
            linux.pop("seccomp")
            if profile is not None:
                linux["seccomp"] = json.loads(profile)
            process["capabilities"] = {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")}
            process["noNewPrivileges"] = False  # or an exec in a nested user namespace gives its root no capabilities
            first = os.getuid()
            for kind in "network", "cgroup":
                if not any(space["type"] == kind for space in linux["namespaces"]):
                    linux["namespaces"].append({"type": kind})
            if first == 0:
                linux["namespaces"].append({"type": "user"})
                mappings = [{"containerID": 0, "hostID": OWNER, "size": 65536}]
                # What a runtime's --device-cgroup-rule does; runc has the tun device in a list of its own.
                linux["resources"]["devices"] += [
                    {"allow": True, "type": "c", "major": 10, "minor": minor, "access": "rwm"} for minor in (200, 229)]
            else:
                mappings = [{"containerID": 0, "hostID": first, "size": 1},
                            {"containerID": 1, "hostID": OWNER, "size": 65536}]
            linux["uidMappings"] = linux["gidMappings"] = mappings

        name = f"{name}{len(os.listdir(self.folder))}"
        folder = self.bundle(name, "", program, change=change)
        if os.getuid() == 0:
            for parent, names, files in os.walk(self.rootfs):
                for one in (parent, *(os.path.join(parent, below) for below in names + files)):
                    os.lchown(one, OWNER, OWNER)
        result = self.runtime("run", name, cwd=folder)
        return result.stderr + result.stdout


class InPodmanTest(Programs):
    """Rootless containers of Podman with that runtime."""

    def setUp(self):
        if shutil.which("podman") is None:
            self.skipTest("podman is not installed")
        super().setUp()

    def run_program(self, name, program, profile):
        path = "unconfined"
        if profile is not None:
            path = os.path.join(self.folder, "profile.json")
            with open(path, "w", encoding="utf-8") as file:
                file.write(profile)
        result = subprocess.run(
            ["timeout", "-s", "KILL", str(PATIENCE), "podman", "--runtime", ARGS.runtime, "--cgroup-manager", "cgroupfs",
             "run", "--rm", "--network", "none", "--cap-add", "NET_ADMIN", "--security-opt", f"seccomp={path}",
             "--rootfs", self.rootfs, "sh", "-c", program], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False)
        return result.stderr + result.stdout


def load_tests(loader, _tests, _pattern):
    where = [InRuntimeTest] if ARGS.who == "root" else [InRuntimeTest, InPodmanTest]
    return loader.suiteClass(loader.loadTestsFromTestCase(case) for case in where)


if __name__ == "__main__":
    sys.exit(main())
