#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`shunt run --rootfs`, with a busybox.

    tests/support/arena [--user] -- tests/run/rootfs_test.py SHUNT [CLASS[.TEST]...]
"""

import os
import pty
import shutil
import subprocess
import tempfile
import unittest

from shunt_run import SHUNT, IS_ROOT, run, main


class Rootfs(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.root = self.scratch.name + "/root"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
            os.makedirs(f"{self.root}/{name}")
        busybox = "/usr/bin/busybox" if os.path.exists("/usr/bin/busybox") else "/bin/busybox"
        if not os.path.exists(busybox) or subprocess.run(["ldd", busybox], capture_output=True).returncode == 0:
            self.skipTest("busybox-static is not installed")
        shutil.copy(busybox, f"{self.root}/bin/busybox")
        for name in ("sh", "cat", "ls", "ps", "id", "touch", "tty", "readlink", "stat", "env"):
            os.symlink("busybox", f"{self.root}/bin/{name}")

    def inside(self, script, *arguments, **kwargs):
        result = run("--rootfs", self.root, *arguments, "--", "sh", "-c", script, **kwargs)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_is_the_root_directory_and_the_host_is_gone(self):
        self.assertEqual(set(self.inside("ls /").split()), set(os.listdir(self.root)))
        self.assertEqual(self.inside("pwd; echo $PWD $HOME"), "/\n/ /root\n")
        for line in self.inside("cat /proc/mounts").splitlines():
            self.assertNotIn(self.scratch.name, line.split()[1])

    def test_has_devices_that_work(self):
        names = set(self.inside("ls /dev").split())
        self.assertLessEqual({"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "fd"}, names)
        self.inside("echo x >/dev/null && : </dev/zero && echo x >/dev/shm/x && cat /dev/ptmx & :; exec 3<>/dev/ptmx")
        self.assertEqual(self.inside("stat -c %a /dev/shm"), "1777\n")

    def test_has_its_own_proc_and_a_read_only_sys(self):
        self.assertEqual(self.inside("echo /proc/[0-9]*").split(), ["/proc/1", "/proc/2"])
        self.assertEqual(self.inside("ls /sys/class/net 2>/dev/null || echo lo").split(), ["lo"])
        self.assertEqual(self.inside("touch /sys/x 2>/dev/null || echo refused"), "refused\n")

    def test_keeps_what_is_written_and_nothing_of_ours(self):
        before = {(where, *sorted(names)) for where, _, names in os.walk(self.root)}
        self.inside(": ")
        self.assertEqual({(where, *sorted(names)) for where, _, names in os.walk(self.root)}, before)
        self.inside("echo kept >/root/file")
        with open(self.root + "/root/file") as file:
            self.assertEqual(file.read(), "kept\n")

    def test_ids_follow_the_map_of_other_rootless_containers(self):
        owner = "0" if IS_ROOT else "65534"
        self.assertEqual(self.inside("id -u", "--user", "26"), "26\n")
        self.assertEqual(self.inside("stat -c %u /", "--user", "26"), "0\n", owner)

    def test_without_a_proc_directory_is_an_error_that_names_the_remedy(self):
        os.rmdir(self.root + "/proc")
        result = run("--rootfs", self.root, "--", "true")
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"mkdir {self.root}/proc", result.stderr)

    def test_a_mount_point_that_leads_out_of_it_is_refused(self):
        os.rmdir(self.root + "/dev")
        os.symlink("/etc", self.root + "/dev")
        result = run("--rootfs", self.root, "--", "true")
        self.assertEqual(result.returncode, 1)
        self.assertIn(self.root + "/dev", result.stderr)

    def test_a_terminal_has_a_name_in_there(self):
        pid, master = pty.fork()
        if pid == 0:
            os.execv(SHUNT, [SHUNT, "run", "--net", "none", "--no-accelerate", "--rootfs", self.root, "--", "tty"])
        text = b""
        try:
            while chunk := os.read(master, 1000):
                text += chunk
        except OSError:
            pass
        os.close(master)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        self.assertEqual(text.strip(), b"/dev/console")

    def test_resolv_conf_is_the_network_programs(self):
        if not shutil.which("slirp4netns"):
            self.skipTest("slirp4netns is not installed")
        with open(self.root + "/etc/resolv.conf", "w") as file:
            file.write("nameserver 192.0.2.1\n")
        text = self.inside("cat /etc/resolv.conf", net="slirp4netns")
        self.assertIn("nameserver 10.0.2.3\n", text)
        self.assertNotIn("192.0.2.1", text)
        self.assertIn("192.0.2.1", self.inside("cat /etc/resolv.conf"))


if __name__ == "__main__":
    main()
