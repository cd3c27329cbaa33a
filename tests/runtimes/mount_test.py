#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real containers mount what they may not, and make devices that they may not make, by `shunt agent`.

    mount_test.py --agent PROGRAM --runtime runc|crun --as root|user

What a container gains is what its policy names, and no more: the masks of its /proc lie on a new proc as well, and stay
there whatever a nested root does to them.
"""

import errno
import os
import sys

sys.dont_write_bytecode = True

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))

import seccomp_listener  # noqa: E402
from runtime_case import RuntimeCase, main  # noqa: E402

CALLS = ["mount", "umount", "umount2", "mknod", "mknodat"]
NEWER = ["fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount"]
APPLETS = ("mount", "umount", "unshare", "mknod", "cat", "grep", "head", "id", "rm", "mv", "ln", "dd", "rmdir", "cut", "test")
# In a user, mount and pid namespace of its own, as rootless tools make them.
NESTED = "unshare -U -r -m -p -f sh -c "


def changed(*changes):
    def change(config):
        for one in changes:
            one(config)
    return change


def without_newer_calls(config):
    config["linux"]["seccomp"]["syscalls"].append({"names": NEWER, "action": "SCMP_ACT_ERRNO", "errnoRet": 38})


def with_user_namespace(config):
    linux = config["linux"]
    if not any(space["type"] == "user" for space in linux["namespaces"]):
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 700000, "size": 65536}]


def with_masks(config):
    config["linux"]["maskedPaths"] = ["/proc/version", "/proc/fs"]
    config["linux"]["readonlyPaths"] = ["/proc/sys"]


def with_capabilities(*names):
    def change(config):
        for kind in config["process"]["capabilities"].values():
            kind += [name for name in names if name not in kind]
    return change


class MountTest(RuntimeCase):
    def setUp(self):
        super().setUp()
        for applet in APPLETS:
            os.symlink("busybox", os.path.join(self.rootfs, "bin", applet))
        os.makedirs(os.path.join(self.rootfs, "root"))
        os.chmod(self.folder, 0o755)

    def give_rootfs_to(self, owner):
        for parent, names, files in os.walk(self.rootfs):
            for one in (parent, *(os.path.join(parent, name) for name in names + files)):
                os.lchown(one, owner, owner)

    def run_program(self, name, program, *changes, metadata="MOUNT_PROC=true", options=(), awaited=None, before=None):
        """Runs a container to its end, and waits for a line of the agent's; what it has printed, errors included."""
        agent = self.start_agent(*options, before=before)
        folder = self.bundle(name, agent.socket, f"exec 2>&1; {program}", traps=CALLS, metadata=metadata,
                             change=changed(without_newer_calls, *changes))
        if os.getuid() == 0:
            self.give_rootfs_to(700000 if with_user_namespace in changes else 0)
        result = self.runtime("run", name, cwd=folder)
        if awaited is not None:
            agent.wait_for(awaited)
        agent.stop()
        self.log = "".join(agent.lines)
        return result.stdout + result.stderr

    # ---- proc

    def test_the_demo(self):
        said = self.run_program("demo", "mount -t proc proc root && ls /root/self/cmdline",
                                options=["--resolver", "demo-basic"], metadata=None)
        self.assertEqual(said, "/root/self/cmdline\n", self.log)

    def check_nested_proc(self, name, **keywords):
        program = NESTED + "'mount -t proc proc /root && head -c 4 /root/self/status; ls -d /root/[0-9]* | wc -l; " \
                           "cat /root/version | wc -c; ls /root/fs | wc -l; echo 1 >/root/sys/kernel/domainname; " \
                           "umount /root; ls /root'"
        said = self.run_program(name, program, with_user_namespace, with_masks, with_capabilities("CAP_SETFCAP"), **keywords)
        # The shell, and what stands in its pipe.
        self.assertRegex(said, r"\AName[234]\n0\n0\nsh: can't create /root/sys/kernel/domainname: "
                               r"Read-only file system\n\Z", self.log)

    def test_a_nested_root_mounts_a_proc_with_the_masks(self):
        self.check_nested_proc("nested")

    def test_a_kernel_that_cannot_be_told_the_pid_namespace_of_a_proc(self):
        fsconfig, command, set_fd = 431, 1, 5
        self.check_nested_proc("older", before=lambda: seccomp_listener.refuse(fsconfig, command, set_fd, errno.EINVAL))

    def test_an_older_kernel_gives_none_where_its_builder_could_be_traced(self):
        if os.getuid() != 0:
            self.skipTest("a container of this user has a user namespace of its own")
        fsconfig, command, set_fd = 431, 1, 5
        said = self.run_program("traced", f"mount -t proc proc /root; {NESTED}'mount -t proc proc /root'; ls /root",
                                with_capabilities("CAP_SETFCAP"), metadata="MOUNT_PROC=true\nMOUNT_NEED_CAP_ADMIN=false",
                                before=lambda: seccomp_listener.refuse(fsconfig, command, set_fd, errno.EINVAL))
        self.assertEqual(said.splitlines(), ["mount: permission denied (are you root?)"] * 2, self.log)

    def test_a_proc_that_is_read_only_as_a_whole(self):
        def read_only(config):
            config["linux"]["readonlyPaths"] = ["/proc"]

        program = "mount -t proc proc /root && echo x >/root/self/comm; mount -o remount,bind,rw /root"
        said = self.run_program("whole", program, with_user_namespace, read_only, with_capabilities("CAP_SYS_ADMIN"))
        self.assertEqual(said.splitlines(), ["sh: can't create /root/self/comm: Read-only file system",
                                             "mount: permission denied (are you root?)"], self.log)

    def test_a_group_among_the_options_is_one_of_the_callers(self):
        program = NESTED + "'mount -t proc -o gid=0,hidepid=2 proc /root && grep \" /root proc\" /proc/self/mounts; " \
                           "mount -t proc -o gid=7 proc /root'"
        said = self.run_program("groups", program, with_user_namespace, with_capabilities("CAP_SETFCAP"))
        # The kernel shows it as the host counts; of the caller's there is no 7.
        ours = 700000 if os.getuid() == 0 else os.getgid()
        self.assertRegex(said, rf"\Aproc /root proc rw,relatime,gid={ours},hidepid=invisible 0 0\n"
                               r"mount: mounting proc on /root failed: Invalid argument\n\Z", self.log)

    def test_a_nested_sysfs_takes_a_network_namespace_of_the_callers_user_namespace(self):
        program = ("unshare -U -r -m mount -t sysfs sysfs /root; "
                   "unshare -U -r -m -n sh -c 'mount -t sysfs sysfs /root && ls /root/class/net'; ls /root")
        said = self.run_program("sysfs", program, with_user_namespace, with_capabilities("CAP_SETFCAP"),
                                metadata="MOUNT_SYSFS=true")
        self.assertEqual(said.splitlines(), ["mount: permission denied (are you root?)", "lo"], self.log)

    def test_who_may_not_gets_nothing(self):
        program = ("mount -t proc proc /root; mount -t sysfs sysfs /root; " +
                   "unshare -U -r -m sh -c 'mount -t proc proc /root'; " +
                   NESTED + "'mount -t sysfs sysfs /root'; ls /root")
        said = self.run_program("refused", program, with_user_namespace, with_capabilities("CAP_SETFCAP"))
        self.assertEqual(said.splitlines(), ["mount: permission denied (are you root?)"] * 4, self.log)

    def test_who_lacks_the_capability_is_said_once(self):
        lacks = "the caller has no CAP_SYS_ADMIN in its user namespace; MOUNT_NEED_CAP_ADMIN=false lets it"
        said = self.run_program("lacks", "mount -t tmpfs none /root; mount -t proc proc /root; mount -t tmpfs none /tmp",
                                with_user_namespace, metadata="MOUNT_PROC=true\nMOUNT_OTHER_FS_LIST=tmpfs",
                                awaited=f"warning: container lacks: mount of tmpfs refused: {lacks}")
        self.assertEqual(said.splitlines(), ["mount: permission denied (are you root?)"] * 3, self.log)
        self.assertEqual(self.log.count("refused"), 1, self.log)

    def test_tmpfs_where_it_is_named(self):
        program = "mount -t tmpfs -o ro,size=64k,nosuid none /root && grep /root /proc/self/mounts; umount /root; " \
                  "grep /root /proc/self/mounts; mount -t ramfs none /root"
        said = self.run_program("tmpfs", program, with_user_namespace,
                                metadata="MOUNT_OTHER_FS_LIST=tmpfs\nMOUNT_NEED_CAP_ADMIN=false")
        lines = said.splitlines()
        self.assertRegex(lines[0], r"^none /root tmpfs ro,nosuid,relatime,size=64k")
        self.assertEqual(lines[1:], ["mount: permission denied (are you root?)"], self.log)

    def test_an_umount_of_anything_else_is_for_the_default_action(self):
        program = "umount /dev/shm; mount -t proc proc /root && umount /dev/shm; umount /root && ls /root"
        said = self.run_program("default", program, with_user_namespace, with_capabilities("CAP_SYS_ADMIN"),
                                metadata="MOUNT_PROC=true\nDEFAULT_ACTION=errno:EACCES")
        self.assertEqual(said.splitlines(), ["umount: can't unmount /dev/shm: Permission denied"] * 2, self.log)

    # ---- others

    def test_a_view_of_a_namespace_is_that_of_the_containers_own(self):
        # Whoever makes the mount is in none of these two of the container's.
        program = ("touch /dev/mqueue/own; mount -t mqueue none /root && ls /root; umount /root; "
                   "mount -t cgroup2 none /root && test -e /root/cgroup.procs && echo mounted")

        def cgroup_namespace(wanted):
            def change(config):
                spaces = config["linux"]["namespaces"]
                spaces[:] = [space for space in spaces if space["type"] != "cgroup"] + [{"type": "cgroup"}] * wanted
            return change

        for users in ([], [with_user_namespace]):
            for wanted, said_of_it in (0, "mount: permission denied (are you root?)"), (1, "mounted"):
                said = self.run_program(f"views{len(users)}{wanted}", program, cgroup_namespace(wanted), *users,
                                        metadata="MOUNT_OTHER_FS_LIST=mqueue,cgroup2\nMOUNT_NEED_CAP_ADMIN=false")
                self.assertEqual(said.splitlines(), ["own", said_of_it], self.log)

    def test_no_disk_of_the_hosts_is_mounted_by_a_node_that_the_container_has_made(self):
        if os.getuid() != 0:
            self.skipTest("a user's containers cannot make nodes")
        said = self.run_program("disk", "mknod /tmp/disk b 7 0 && mount -t ext4 /tmp/disk /root", with_capabilities("CAP_MKNOD"),
                                metadata="MOUNT_OTHER_FS_LIST=ext4\nMOUNT_NEED_CAP_ADMIN=false")
        # There is no such file where the kernel looks; of a disk that is empty it would say something else.
        self.assertEqual(said, "mount: mounting /tmp/disk on /root failed: No such file or directory\n", self.log)

    def test_paths_among_the_options_are_the_callers(self):
        program = ("mount -t tmpfs none /tmp; cd /tmp; mkdir low up work merged; echo old >low/file; chmod 700 /tmp; "
                   "mount -t overlay -o lowerdir=low,upperdir=up,workdir=work none merged && cat merged/file && "
                   "echo new >merged/file && cat up/file; umount merged")
        # Nobody makes an overlay without it: the kernel's own directory in there has no mode.
        said = self.run_program("overlay", program, with_user_namespace, with_capabilities("CAP_DAC_OVERRIDE"),
                                metadata="MOUNT_OTHER_FS_LIST=tmpfs,overlay\nMOUNT_NEED_CAP_ADMIN=false")
        self.assertEqual(said.splitlines(), ["old", "new"], self.log)
        program = ("mkdir -p /tmp/closed/low /tmp/low /tmp/also/low; chmod 0 /tmp/closed; "
                   "mount -t overlay -o lowerdir=/tmp/low:/tmp/closed/low none /root; ls /root; "
                   "mount -t overlay -o lowerdir=/tmp/low:/tmp/also none /root; ls /root; chmod 700 /tmp/closed")
        said = self.run_program("closed", program, with_user_namespace,
                                metadata="MOUNT_OTHER_FS_LIST=overlay\nMOUNT_NEED_CAP_ADMIN=false")
        self.assertEqual(said.splitlines(), ["mount: mounting none on /root failed: Permission denied", "low"], self.log)

    # ---- devices

    def test_listed_devices(self):
        program = ("umask 027; mknod /tmp/zero c 1 5; stat -c '%F %t:%T %a %u:%g' /tmp/zero; head -c 3 /tmp/zero | wc -c; "
                   "mknod /tmp/zero c 1 5; mknod /tmp/sda b 8 0; mknod /tmp/kmsg c 1 11; mknod /tmp/nowhere/x c 1 5; "
                   "mknod /dev/shm/zero c 1 5; "
                   "mknod /tmp/fifo p; test -p /tmp/fifo && echo fifo; ls /tmp")
        for changes in ([], [with_user_namespace]):
            said = self.run_program(f"zero{len(changes)}", program, *changes, metadata="MKNOD=/dev/zero")
            # Who has no rights on the host can only show what the host has.
            made = "640 0:0" if os.getuid() == 0 else "666 65534:65534"
            self.assertEqual(said.splitlines(), [
                f"character special file 1:5 {made}", "3", "mknod: /tmp/zero: File exists",
                "mknod: /tmp/sda: Operation not permitted", "mknod: /tmp/kmsg: Operation not permitted",
                "mknod: /tmp/nowhere/x: No such file or directory",
                "mknod: /dev/shm/zero: Operation not permitted", "fifo", "fifo", "zero"], self.log)
            for name in ("fifo", "zero"):
                os.unlink(os.path.join(self.rootfs, "tmp", name))

    def test_a_device_of_no_use_is_said(self):
        def allow_tun(config):
            config["linux"]["resources"] = {"devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rwm"}]}

        said = self.run_program("tun", "mknod /tmp/tun c 10 200; head -c 1 /tmp/tun", with_user_namespace, allow_tun,
                                metadata="MKNOD=/dev/net/tun",
                                awaited="warning: container tun: /dev/net/tun was made for a program without CAP_NET_ADMIN")
        self.assertIn("head: ", said)

        def deny_all(config):
            config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}

        if os.getuid() != 0:
            return  # a rootless runtime has no cgroup to forbid devices with
        # The runtime allows /dev/zero to everybody.
        said = self.run_program("fuse", "mknod /tmp/zero c 1 5; mknod /tmp/fuse c 10 229; head -c 1 /tmp/fuse",
                                with_user_namespace, deny_all, metadata="MKNOD=/dev/zero,/dev/fuse",
                                awaited="warning: container fuse: the device c 10:229, which it may make, cannot be opened in it"
                                        ".*'c 10:229 rwm'")
        self.assertIn("head: /tmp/fuse: Operation not permitted", said)


if __name__ == "__main__":
    sys.exit(main())
