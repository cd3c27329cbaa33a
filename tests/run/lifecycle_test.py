#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`shunt run` and its command: exit statuses, signals, users, namespaces, and what is left behind.

    tests/support/arena [--user] -- tests/run/lifecycle_test.py SHUNT [CLASS[.TEST]...]
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from shunt_run import SHUNT, PYTHON, DEADLINE, IS_ROOT, ACCELERATED, run, start, until, processes, descendants, alive, main


class ExitStatus(unittest.TestCase):
    def test_is_the_commands_own(self):
        for status in (0, 1, 7, 255):
            self.assertEqual(run("--", "sh", "-c", f"exit {status}").returncode, status)

    def test_is_128_and_the_signal_that_killed_the_command(self):
        for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV):
            self.assertEqual(run("--", "sh", "-c", f"kill -{int(sig)} $$").returncode, 128 + sig)

    def test_is_127_for_a_command_that_does_not_exist_and_names_it(self):
        result = run("--", "no-such-command")
        self.assertEqual(result.returncode, 127)
        self.assertIn("no-such-command", result.stderr)

    def test_is_126_for_a_file_that_cannot_be_executed(self):
        result = run("--", "/etc/passwd")
        self.assertEqual(result.returncode, 126)
        self.assertIn("/etc/passwd", result.stderr)

    def test_comes_with_nothing_said_when_all_is_well(self):
        result = run("--", "cat", stdin=None, input="through\n")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "through\n", ""))

    def test_arguments_arrive_as_they_are(self):
        result = run("--", "printf", "%s|", "-v", "--", "--net", "", "a b", "run")
        self.assertEqual(result.stdout, "-v|--|--net||a b|run|")
        self.assertEqual(run("printf", "%s|", "-v").stdout, "-v|")


class Usage(unittest.TestCase):
    def refused(self, word, *arguments):
        with tempfile.TemporaryDirectory() as directory:
            witness = directory + "/started"
            result = run(*arguments, "--", "touch", witness, net=None)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
            self.assertIn(word, result.stderr)
            self.assertFalse(os.path.exists(witness))

    def test_wrong_options_are_named_and_start_nothing(self):
        self.refused("--bogus", "--bogus")
        self.refused("--net", "--net", "token-ring")
        self.refused("pasta", "--net", "token-ring")
        self.refused("--publish", "-p", "80")
        self.refused("--publish", "-p", "80:0")
        self.refused("--publish", "-p", "8080:80", "-p", "8080:81")
        self.refused("--ignore", "--ignore", "10.0.0.0/33")
        self.refused("--rootfs", "--rootfs", "/no/such/directory")
        self.refused("--rootfs", "--rootfs", "/")
        self.refused("--user", "--user", "root")
        self.refused("--affinity", "--affinity", "sticky")

    def test_asking_an_agent_that_is_not_there_makes_nothing(self):
        with tempfile.TemporaryDirectory() as directory:
            before = os.path.exists("/run/shunt")
            result = subprocess.run([SHUNT, "ctl", "status"], env=dict(os.environ, XDG_RUNTIME_DIR=directory),
                                    capture_output=True, text=True, timeout=DEADLINE)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertIn("No such file or directory", result.stderr)
            self.assertEqual((os.listdir(directory), os.path.exists("/run/shunt")), ([], before))

    def test_what_is_no_command_is_named_with_what_would_be_one(self):
        for words, command, wrong, right in ((["ctl", "foo"], "shunt ctl", "argument foo", "status, upgrade, reload"),
                                             (["ctl", "--foo"], "shunt ctl", "option --foo", ""),
                                             (["foo"], "shunt", "argument foo", "run, agent, ctl"),
                                             (["profile", "foo"], "shunt profile", "argument foo", "")):
            with self.subTest(words=words):
                result = subprocess.run([SHUNT, *words], capture_output=True, text=True, timeout=DEADLINE)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertTrue(result.stderr.startswith(f"{command}: unknown {wrong}"), result.stderr)
                self.assertIn(right, result.stderr)
                self.assertNotIn("engine", result.stderr)

    def test_a_missing_command_is_named(self):
        for arguments in ([], ["-v"], ["--"]):
            result = run(*arguments)
            self.assertEqual(result.returncode, 2)
            self.assertIn("COMMAND", result.stderr)

    def test_help_shows_an_example_before_the_options(self):
        result = run("--help")
        self.assertEqual(result.returncode, 0)
        self.assertLess(result.stdout.index("shunt run -- curl"), result.stdout.index("--rootfs DIR"))

    def test_publishing_without_a_network_that_could_is_an_error(self):
        if ACCELERATED:
            self.skipTest("the engine may be able to publish")
        result = run("-p", "18080:80", "--", "true")
        self.assertEqual(result.returncode, 1)
        self.assertIn("--publish 18080:80", result.stderr)
        self.assertIn("--net none", result.stderr)


# Prints the names of the signals that it gets, until SIGTERM has come.
REPORTER = r"""
import signal, sys
names = sys.argv[1:]
signals = [getattr(signal, name) for name in names]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("ready", flush=True)
while True:
    info = signal.sigwaitinfo(signals)
    print(signal.Signals(info.si_signo).name, flush=True)
    if info.si_signo == signal.SIGTERM: break
"""


class Signals(unittest.TestCase):
    NAMES = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTSTP", "SIGCONT", "SIGTERM"]

    def test_sent_to_shunt_reach_the_command_once(self):
        process = start("--", PYTHON, "-c", REPORTER, *self.NAMES)
        self.assertEqual(process.stdout.readline(), "ready\n")
        for name in self.NAMES:
            process.send_signal(getattr(signal, name))
            self.assertEqual(process.stdout.readline(), name + "\n")
        # Had one come twice, it would stand here.
        self.assertEqual(process.stdout.read(), "")
        self.assertEqual(process.wait(DEADLINE), 0)

    def test_that_the_caller_ignores_stay_ignored(self):
        code = "import signal; print([signal.getsignal(sig).name for sig in (signal.SIGHUP, signal.SIGTERM)])"
        result = run("--", PYTHON, "-c", code, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.assertEqual(result.stdout.strip(), "['SIG_IGN', 'SIG_DFL']")

    def test_the_command_starts_with_the_callers_mask(self):
        code = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
        self.assertEqual(run("--", PYTHON, "-c", code).stdout.strip(), "[]")

    def test_kill_the_command_as_they_would_without_shunt(self):
        process = start("--", "sh", "-c", "echo ready; exec cat", stdin=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(DEADLINE), 128 + signal.SIGTERM)
        process.communicate()

    def test_a_stopped_command_stops_shunt_and_goes_on_with_it(self):
        code = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); print('went on')"
        process = start("--", PYTHON, "-c", code)
        until(lambda: processes()[process.pid][1] == "T", "shunt stops")
        engine = [pid for pid, (parent, _, _) in processes().items() if parent == process.pid]
        self.assertNotIn("T", [processes()[pid][1] for pid in engine])
        process.send_signal(signal.SIGCONT)
        self.assertEqual(process.communicate(timeout=DEADLINE)[0], "went on\n")
        self.assertEqual(process.returncode, 0)


class Lifetime(unittest.TestCase):
    NETWORKS = ["none"] + [name for name in ("slirp4netns", "pasta") if shutil.which(name)]

    def test_orphans_are_reaped(self):
        code = r"""
import os, time
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode()); os._exit(0)
    os._exit(0)
os.wait()
orphan = os.read(read, 20).decode()
end = time.monotonic() + 20
while os.path.exists("/proc/" + orphan):
    assert time.monotonic() < end, "still there"
    time.sleep(0.01)
"""
        result = run("--", PYTHON, "-c", code)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_everything_ends_with_the_command(self):
        for net in self.NETWORKS:
            process = start("--", "sh", "-c", "sleep 1000 & setsid sleep 1000 & echo ready; read line",
                            net=net, stdin=subprocess.PIPE)
            self.assertEqual(process.stdout.readline(), "ready\n")
            family = descendants(process.pid)
            self.assertGreaterEqual(len(family), 5)
            process.communicate("\n", timeout=DEADLINE)
            self.assertEqual(alive(family), set())

    def test_killing_shunt_leaves_nothing(self):
        for net in self.NETWORKS:
            for whole_group in (False, True):
                with tempfile.TemporaryDirectory() as directory:
                    process = start("--", "sh", "-c", "setsid sleep 1000 & echo ready; read line",
                                    net=net, stdin=subprocess.PIPE,
                                    env=dict(os.environ, TMPDIR=directory))
                    self.assertEqual(process.stdout.readline(), "ready\n")
                    family = descendants(process.pid)
                    if whole_group:
                        os.killpg(process.pid, signal.SIGKILL)
                    else:
                        process.kill()
                    process.communicate(timeout=DEADLINE)
                    self.assertEqual(process.returncode, -signal.SIGKILL)
                    until(lambda: not alive(family), f"{net}: all end")
                    self.assertEqual(os.listdir(directory), [])

    def test_killing_the_engine_ends_the_command_and_says_so(self):
        process = start("--", "sh", "-c", "echo ready; exec sleep 1000", stderr=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), "ready\n")
        family = descendants(process.pid)
        (engine,) = [pid for pid, (parent, _, _) in processes().items() if parent == process.pid]
        os.kill(engine, signal.SIGKILL)
        _, error = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, 1)
        self.assertIn("engine", error)
        until(lambda: not alive(family), "all end")

    def test_no_mount_and_no_system_v_memory_is_left(self):
        def state():
            with open("/proc/mounts") as mounts, open("/proc/sysvipc/shm") as shm:
                return mounts.read(), shm.read()

        before = state()
        self.assertEqual(run("--", "ipcmk", "-M", "4096").returncode, 0)
        self.assertEqual(state(), before)


class Descriptors(unittest.TestCase):
    def test_only_the_standard_ones_pass(self):
        read, write = os.pipe()
        result = run("--", "ls", "/proc/self/fd", pass_fds=[read, write])
        os.close(read), os.close(write)
        # 3 is the directory that ls reads.
        self.assertEqual(result.stdout.split(), ["0", "1", "2", "3"])

    def test_a_reader_sees_the_end_when_the_command_closes_its_output(self):
        process = start("--", "sh", "-c", "exec >&-; read line", stdin=subprocess.PIPE)
        self.assertEqual(process.stdout.read(), "")
        self.assertIsNone(process.poll())
        process.communicate("\n", timeout=DEADLINE)
        self.assertEqual(process.returncode, 0)

    def test_a_writer_sees_that_the_command_closed_its_input(self):
        process = start("--", "sh", "-c", "exec <&-; echo closed; exec sleep 1000", stdin=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), "closed\n")
        with self.assertRaises(BrokenPipeError):
            for _ in range(2):
                process.stdin.write("x" * 100000)
                process.stdin.flush()
        process.kill()
        process.wait(DEADLINE)
        process.stdout.close()


class Namespaces(unittest.TestCase):
    def test_the_command_has_its_own_and_proc_shows_them(self):
        for kind in ("user", "mnt", "net", "pid", "ipc"):
            inside = run("--", "readlink", f"/proc/self/ns/{kind}").stdout.strip()
            self.assertTrue(inside.startswith(kind + ":"), inside)
            self.assertNotEqual(inside, os.readlink(f"/proc/self/ns/{kind}"))
        pids = run("--", "sh", "-c", "echo /proc/[0-9]*").stdout.split()
        self.assertEqual(pids, ["/proc/1", "/proc/2"])

    def test_without_a_network_there_is_loopback_and_nothing_else(self):
        self.assertEqual(run("--", "ls", "/sys/class/net").stdout.split(), ["lo"])
        code = ("import socket; s=socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
                "c=socket.create_connection(s.getsockname()); print('ok')")
        self.assertEqual(run("--", PYTHON, "-c", code).stdout, "ok\n")

    def test_a_network_that_the_command_makes_stays_cut_off_even_if_its_call_is_the_first(self):
        host = os.environ.get("ARENA_HOST")
        if not ACCELERATED or not host:
            self.skipTest("needs an engine, and a network from tests/support/arena")
        with socket.create_server((host, 0)) as server:
            code = ("import errno, socket; error = socket.socket().connect_ex(('%s', %d));"
                    "print(errno.errorcode.get(error, 'connected'))" % server.getsockname())
            command = f'unshare --user --map-root-user --net {PYTHON} -c "$0"; exec {PYTHON} -c "$0"'
            result = run("--", "sh", "-c", command, code)
            self.assertEqual(result.stdout.split(), ["ENETUNREACH", "connected"], result.stderr)

    def test_control_groups_are_still_to_be_seen(self):
        if not os.listdir("/sys/fs/cgroup"):
            self.skipTest("this machine has no control groups")
        self.assertEqual(sorted(run("--", "ls", "/sys/fs/cgroup").stdout.split()), sorted(os.listdir("/sys/fs/cgroup")))

    def test_the_working_directory_and_the_environment_stay(self):
        with tempfile.TemporaryDirectory() as directory:
            result = run("--", "sh", "-c", "pwd; echo $GREETING", cwd=directory, env=dict(os.environ, GREETING="hello"))
            self.assertEqual(result.stdout, f"{directory}\nhello\n")

    def test_nests(self):
        result = run("--", SHUNT, "run", "--net", "none", "--no-accelerate", "--", "sh", "-c", "exit 5")
        self.assertEqual(result.returncode, 5, result.stderr)


class Users(unittest.TestCase):
    def test_the_command_is_root_unless_told_otherwise(self):
        self.assertEqual(run("--", "id", "-u").stdout, "0\n")
        self.assertEqual(run("--user", "26", "--", "sh", "-c", "id -u; id -g").stdout, "26\n26\n")
        self.assertEqual(run("--user", "26:0", "--", "sh", "-c", "id -u; id -g").stdout, "26\n0\n")

    def test_root_has_capabilities_and_nobody_else(self):
        for user, capable in (("0", True), ("26", False)):
            text = run("--user", user, "--", "grep", "CapEff", "/proc/self/status").stdout
            self.assertEqual(int(text.split()[1], 16) != 0, capable)

    def test_new_files_belong_to_the_caller_or_to_the_same_user_for_root(self):
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o777)
            for user in (0, 26):
                result = run("--user", str(user), "--", "touch", f"{directory}/{user}")
                self.assertEqual(result.returncode, 0, result.stderr)
                owner = os.stat(f"{directory}/{user}").st_uid
                self.assertEqual(owner, user if IS_ROOT else os.geteuid())

    def test_others_have_subordinate_ids(self):
        text = run("--", "cat", "/proc/self/uid_map").stdout.split()
        expected = ["0", "0", "65536"] if IS_ROOT else ["0", "7331", "1", "1", "700000", "65536"]
        self.assertEqual(text, expected)

    def test_root_does_not_become_root_under_another_name(self):
        if not IS_ROOT:
            self.skipTest("for root only")
        result = run("--user", "70000", "--", "id")
        self.assertEqual(result.returncode, 1)
        self.assertIn("--user 70000", result.stderr)

    def test_a_user_without_subordinate_ids_is_the_only_one(self):
        if not IS_ROOT:
            self.skipTest("needs root to become such a user")
        as_other = ["setpriv", "--reuid", "7332", "--regid", "7332", "--clear-groups", "--", SHUNT, "run", "--net", "none", "--no-accelerate"]
        for arguments, expected in (([], "0 7332 1 0"), (["--user", "26"], "26 7332 1 26")):
            command = as_other + arguments + ["--", "sh", "-c", "echo $(cat /proc/self/uid_map) $(id -u)"]
            result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
            self.assertEqual(result.stdout.strip(), expected, result.stderr)


if __name__ == "__main__":
    main()
