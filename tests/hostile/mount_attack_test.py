#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A hostile container, in real runtimes, attacks the mounts and devices that `shunt agent` gives it. Nothing may get through.

    mount_attack_test.py --agent PROGRAM --guest PROGRAM --runtime runc|crun --as root|user

The attacks are those of mounts/. How often races are tried is SHUNT_HOSTILE_TRIES in the environment, or small.
"""

import errno
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
for beside in ("runtimes", "support"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", beside))
import runtime_case  # noqa: E402  (found by the lines above)
import seccomp_listener  # noqa: E402
from runtime_case import ARGS, RuntimeCase, main  # noqa: E402

CALLS = ["mount", "umount", "umount2", "mknod", "mknodat"]
TRIES = int(os.environ.get("SHUNT_HOSTILE_TRIES", "200"))
MAPPED = 700000
EPERM = "1"
LIMITS = "mount source=longest 22", "mount source=name 22"
# The attacks of a run take longer than anything that a runtime does.
runtime_case.PATIENCE = 100 + TRIES // 5


def with_user_namespace(config):
    linux = config["linux"]
    if not any(space["type"] == "user" for space in linux["namespaces"]):
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": MAPPED, "size": 65536}]


def prepare(config):
    config["linux"]["maskedPaths"] = ["/proc/version", "/proc/tty", "/sys/kernel", "/sys/fs"]
    config["linux"]["readonlyPaths"] = ["/proc/sys"]
    for kind in config["process"]["capabilities"].values():
        kind += [name for name in ("CAP_SETFCAP", "CAP_SYS_CHROOT") if name not in kind]
    config["process"]["rlimits"] = []


class MountAttacks(RuntimeCase):
    def setUp(self):
        super().setUp()
        shutil.copy(ARGS.guest, os.path.join(self.rootfs, "bin", "mount_attacks"))
        os.makedirs(os.path.join(self.rootfs, "root"))
        os.chmod(self.folder, 0o755)

    def attack(self, *words, mapped=True, metadata="MOUNT_PROC=true\nMKNOD=/dev/zero", options=(), more=None, before=None):
        """Runs the program in a container; its lines."""
        agent = self.start_agent(*options, before=before)

        def change(config):
            prepare(config)
            config["process"]["args"] = ["/bin/mount_attacks", *words]
            if more is not None:
                more(config)
            if mapped:
                with_user_namespace(config)

        name = f"a{len(os.listdir(self.folder))}"
        folder = self.bundle(name, agent.socket, "", traps=CALLS, metadata=metadata, change=change)
        if os.getuid() == 0:
            owner = MAPPED if mapped else 0
            subprocess.run(["chown", "-R", f"{owner}:{owner}", self.rootfs], check=True)
        result = self.runtime("run", name, cwd=folder)
        agent.stop()
        said = f"{result.stdout}{result.stderr}{''.join(agent.lines)}"
        self.assertEqual(result.returncode, 0, said)
        return result.stdout.splitlines(), said

    def assert_none_through(self, *words, **keywords):
        lines, said = self.attack(*words, **keywords)
        self.assertTrue(lines, said)
        for line in said.splitlines():
            if "skipped:" in line:
                print(line, flush=True)
        for line in lines:
            name, tries, through = line.split()
            print(f"{words[0]} {name}: {tries} tries, {through} through", flush=True)
            self.assertGreater(int(tries), 0, f"{name}: nothing was tried\n{said}")
        self.assertEqual([line for line in lines if line.split()[2] != "0"], [], said)

    def test_masks_stay_for_a_nested_root(self):
        self.assert_none_through("unmask", "nested")

    def test_masks_of_a_sysfs_stay_for_a_nested_root(self):
        self.assert_none_through("unmask", "nested", "sysfs", metadata="MOUNT_SYSFS=true")

    def test_masks_stay_in_the_container_itself(self):
        """Where those of its own /proc stay because nobody in it may umount at all."""
        if os.getuid() != 0:
            self.skipTest("a container of this user has a user namespace, in which its root may mount")
        self.assert_none_through("unmask", "here", mapped=False, metadata="MOUNT_PROC=true\nMOUNT_NEED_CAP_ADMIN=false")

    def test_nothing_lands_outside(self):
        canary = os.path.join(self.folder, "canary")
        os.makedirs(os.path.join(canary, "x"))
        os.chmod(canary, 0o777)
        before = self.host_mounts()
        self.assert_none_through("paths", str(TRIES), canary)
        self.assertEqual(self.host_mounts(), before)
        self.assertEqual([names for _, *names in os.walk(canary)], [[["x"], []], [[], []]])

    def check_what_the_host_shares(self, **keywords):
        if os.getuid() != 0:
            self.skipTest("a container of this user has a user namespace, of whose mounts the host sees none")
        volume = os.path.join(self.folder, "volume")
        for folder in ("x/y", "y"):
            os.makedirs(os.path.join(volume, folder))
        subprocess.run(["mount", "--bind", volume, volume], check=True)
        self.addCleanup(self.unmount, volume)
        subprocess.run(["mount", "--make-shared", volume], check=True)

        def share(config):
            # What Docker makes of a volume that is to pass mounts on. (containerd's CRI says "rshared", by which crun
            # leaves nothing in the container that is not shared.)
            config["linux"]["rootfsPropagation"] = "shared"
            config["mounts"] += [
                {"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind", "rshared"]},
                {"destination": "/own", "type": "tmpfs", "source": "tmpfs"}]

        before = self.host_mounts()
        try:
            self.assert_none_through("shared", "/volume", "/own", mapped=False, more=share,
                                     metadata="MOUNT_PROC=true\nMOUNT_OTHER_FS_LIST=tmpfs\nMOUNT_NEED_CAP_ADMIN=false",
                                     **keywords)
        finally:
            self.assertEqual(self.host_mounts(), before)

    def unmount(self, place):
        """With all that an attack has mounted on it."""
        while place in (line.split()[4] for line in self.host_mounts().splitlines()):
            subprocess.run(["umount", "--lazy", place], check=True)

    def test_nothing_is_mounted_on_what_the_host_shares(self):
        self.check_what_the_host_shares()

    def test_an_older_kernel_mounts_nothing_on_what_the_host_shares(self):
        """One that cannot be asked about a mount by its number."""
        statmount, flags = 457, 3
        self.check_what_the_host_shares(before=lambda: seccomp_listener.refuse(statmount, flags, 0, errno.ENOSYS))

    @staticmethod
    def host_mounts():
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            return file.read()

    def test_the_policy_holds(self):
        self.assert_none_through("policy", str(TRIES))

    def test_umount_is_for_what_is_ours(self):
        self.assert_none_through("ends")

    def test_errnos_are_native(self):
        native = subprocess.run([ARGS.guest, "errnos", self.rootfs], capture_output=True, text=True, check=False)
        self.assertEqual(native.returncode, 0, native.stdout + native.stderr)
        lines, said = self.attack("errnos", "/")
        expected = native.stdout.splitlines()
        self.assertEqual(len(lines), len(expected), said)
        # Who may not natively is told so; here it may. And the calls that make mounts take no longer source.
        wrong = [f"{is_so}, natively {was}" for is_so, was in zip(lines, expected)
                 if is_so != was and was.split()[-1] != EPERM and is_so not in LIMITS]
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    sys.exit(main())
