#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real containers have their calls renamed, refused, delayed and continued by `shunt agent`.

    handlers_test.py --agent PROGRAM --runtime runc|crun --as root|user

The demos of the Kinvolk Seccomp Agent's README word for word, and what runc's own integration tests of seccomp
notifications (tests/integration/seccomp-notify.bats) expect of an agent and of a runtime.
"""

import os
import re
import select
import signal
import subprocess
import sys
import threading

sys.dont_write_bytecode = True

from runtime_case import ARGS, PATIENCE, Agent, RuntimeCase, main  # noqa: E402

OTHER_USER = 7331  # the arena's ordinary user
MKDIR = {"traps": ["mkdir"], "metadata": "MKDIR_TMPL=-bar"}
# What a runtime itself does between its filter and the container's program, and the program's loader after it.
IMPORTANT = ["execve", "openat", "open", "read", "close", "fcntl"]


def no_new_privileges(value):
    def change(config):
        config["process"]["noNewPrivileges"] = value
    return change


def listener_path(path):
    def change(config):
        config["linux"]["seccomp"]["listenerPath"] = path
    return change


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def engine_of(agent):
    """A pidfd of the agent's engine, which the keeper's starter has made."""
    starter = children(agent.process.pid)[0]
    for pid in children(starter):
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            if file.read().split("\0")[1] == "engine":
                return os.pidfd_open(pid)
    raise AssertionError("the agent has no engine")


def await_end(pidfd):
    ended, _, _ = select.select([pidfd], [], [], PATIENCE)
    if not ended:
        raise AssertionError("a process does not end")


class HandlersTest(RuntimeCase):
    def run_program(self, name, agent, program, **keywords):
        """Runs a container to its end; its output, what the shell says of errors included."""
        folder = self.bundle(name, agent.socket, f"exec 2>&1; {program}", **keywords)
        return self.runtime("run", name, cwd=folder)

    def assert_fails_to_run(self, name, agent, said, **keywords):
        result = self.runtime("run", name, cwd=self.bundle(name, agent.socket, "true", **keywords))
        self.assertNotEqual(result.returncode, 0)
        if ARGS.runtime == "runc":
            self.assertIn(said, result.stderr)

    # ---- the README of the Kinvolk agent

    def test_the_basic_demo(self):
        agent = self.start_agent("--resolver", "demo-basic")
        result = self.run_program("demo", agent, "mkdir /abc; ls -1d /ab*; chmod 777 /",
                                  traps=["openat", "open", "mkdir", "mount", "chmod", "fchmodat"])
        self.assertRegex(result.stdout, r"\A/abc-pid-[1-9][0-9]*\nchmod: /: Bad message\n\Z", result.stderr)

    def test_the_pid_of_the_basic_demo_is_that_of_what_came_under_the_filter(self):
        agent = self.start_agent("--resolver", "demo-basic")
        self.bundle("pid", agent.socket, "mkdir /abc", traps=["mkdir"])
        # Not through self.runtime(): what stays behind would hold the pipes of its output.
        created = subprocess.run(self.runtime_command("create", name="pid"), cwd=os.path.join(self.folder, "pid"),
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        self.addCleanup(self.delete, "pid")
        self.assertEqual(created.returncode, 0)
        pid = re.search(r'"pid": ([0-9]+)', self.runtime("state", "pid").stdout)[1]
        self.runtime("start", "pid")
        self.wait_until(lambda: os.path.isdir(os.path.join(self.rootfs, f"abc-pid-{pid}")),
                        f"abc-pid-{pid} in {os.listdir(self.rootfs)}")

    def test_the_metadata_of_the_demo_on_kubernetes(self):
        agent = self.start_agent("--resolver", "kubernetes")
        pod = {"io.kubernetes.cri.sandbox-namespace": "default", "io.kubernetes.cri.sandbox-name": "mynotifypod",
               "io.kubernetes.cri.container-name": "container1"}
        result = self.run_program(
            "pod", agent, 'mkdir /abc; ls -1d /abc*; time -f %E /bin/echo -n ""; time -f %E /bin/true',
            annotations=pod, traps=["openat", "open", "mkdir", "mount", "chmod", "execve"],
            metadata="MKDIR_TMPL=-{{.Namespace}}-{{.Pod}}-{{.Container}}\nEXEC_PATTERN=/bin/true\nEXEC_DURATION=2s\n"
                     "MOUNT_PROC=true")
        self.assertRegex(result.stdout, r"\A/abc-default-mynotifypod-container1\n0m 0\.[0-9]+s\n0m 2\.[0-9]+s\n\Z",
                         result.stderr)

    def test_a_delayed_program_delays_nothing_else_of_its_container(self):
        agent = self.start_agent()
        program = ("read before rest </proc/uptime; /bin/true & "
                   "for i in 1 2 3 4 5 6 7 8; do mkdir /tmp/beside$i; done; read beside rest </proc/uptime; "
                   "wait; read after rest </proc/uptime; echo $before $beside $after")
        result = self.run_program("delay", agent, program, traps=["mkdir", "execve"],
                                  metadata="MKDIR_TMPL=-x\nEXEC_PATTERN=/bin/true\nEXEC_DURATION=4s")
        before, beside, after = map(float, result.stdout.split())
        self.assertGreaterEqual(after - before, 3.99)  # /proc/uptime has two digits
        self.assertLess(beside - before, 2)
        self.assertEqual(len([name for name in os.listdir(os.path.join(self.rootfs, "tmp")) if
                              re.fullmatch("beside[1-8]-x", name)]), 8)

    # ---- runc's integration tests

    def test_a_directory_gets_the_suffix_of_the_metadata(self):
        agent = self.start_agent()
        for value in False, True:
            result = self.run_program(f"suffix{value}", agent, "mkdir /dev/shm/foo && stat -c %F /dev/shm/foo-bar",
                                      change=no_new_privileges(value), **MKDIR)
            self.assertEqual((result.returncode, result.stdout), (0, "directory\n"), result.stderr)

    def test_what_is_executed_in_a_container_gets_the_suffix_too(self):
        agent = self.start_agent()
        for value in False, True:
            name = f"exec{value}"
            self.start_container(name, agent, marker=name + "-bar", change=no_new_privileges(value), **MKDIR)
            agent.wait_for(rf"container {name}: serving it ")
            result = self.runtime("exec", name, "sh", "-c", "mkdir /dev/shm/foo && stat -c %F /dev/shm/foo-bar")
            if "SYS_PIDFD_GETFD syscall: operation not permitted" in result.stderr:
                self.skipTest("this runc cannot take the listener of a rootless exec: " + result.stderr.strip())
            self.assertEqual((result.returncode, result.stdout), (0, "directory\n"), result.stderr)
            agent.wait_for(rf"container {name}: serving a process started in it ")
            agent.wait_for(rf"container {name}: ended \(\d+ listeners left")

    def test_a_filter_that_lets_only_deadly_signals_interrupt_is_served(self):
        agent = self.start_agent()

        def change(config):
            config["linux"]["seccomp"]["flags"] = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]

        result = self.run_program("flag", agent, "mkdir /dev/shm/foo && stat -c %F /dev/shm/foo-bar", change=change,
                                  **MKDIR)
        if "seccomp flag" in result.stderr or "unknown" in result.stderr.lower():
            self.skipTest(f"this {ARGS.runtime} does not know the flag: " + result.stderr.strip())
        self.assertEqual((result.returncode, result.stdout), (0, "directory\n"), result.stderr)

    def test_calls_that_the_runtime_itself_needs_are_continued(self):
        agent = self.start_agent()
        for value in False, True:
            result = self.run_program(f"important{value}", agent, "/bin/true && echo done", traps=IMPORTANT,
                                      change=no_new_privileges(value))
            self.assertEqual((result.returncode, result.stdout), (0, "done\n"), result.stderr)

    def test_a_strict_agent_refuses_those_calls_without_hanging_the_runtime(self):
        agent = self.start_agent("--strict")
        result = self.run_program("refused", agent, "/bin/true", traps=IMPORTANT, metadata="NONSENSE=1")
        self.assertNotIn(result.returncode, (0, -signal.SIGKILL, 128 + signal.SIGKILL), result.stderr)
        self.delete("refused")
        agent.wait_for(r"error: container refused is refused")
        agent.wait_for(r"container refused: ended \(0 listeners left")

    def test_a_listener_path_without_a_trap_is_ignored(self):
        agent = self.start_agent()

        def change(config):
            config["linux"]["seccomp"]["syscalls"] = []

        result = self.run_program("nothing", agent, "mkdir /dev/shm/foo && stat -c %F /dev/shm/foo", change=change)
        self.assertEqual((result.returncode, result.stdout), (0, "directory\n"), result.stderr)
        if ARGS.runtime == "runc":  # crun sends a listener all the same
            self.assertNotIn("serving", "".join(agent.lines))

    def test_a_wrong_listener_path_ends_the_runtime(self):
        agent = self.start_agent()
        self.assert_fails_to_run("empty", agent, "listenerPath is not set", change=listener_path(""))
        self.assert_fails_to_run("wrong", agent, "failed to connect with seccomp agent",
                                 change=listener_path("/some-non-existing-listener-path.sock"))
        self.assert_fails_to_run("abstract", agent, "failed to connect with seccomp agent",
                                 change=listener_path("@mysocketishere"))
        self.assertEqual(agent.stop(), 0)
        self.assert_fails_to_run("late", agent, "failed to connect with seccomp agent")

    def test_an_engine_that_is_killed_fails_no_call(self):
        agent = self.start_agent()
        self.start_container("kept", agent, program="until [ -e /tmp/go ]; do :; done; mkdir /tmp/foo",
                             marker="kept-bar", **MKDIR)
        engine = engine_of(agent)
        self.addCleanup(os.close, engine)
        signal.pidfd_send_signal(engine, signal.SIGKILL)
        await_end(engine)
        open(os.path.join(self.rootfs, "tmp", "go"), "wb").close()
        self.wait_until(lambda: os.path.isdir(os.path.join(self.rootfs, "tmp", "foo-bar")),
                        "the directory is not made:\n" + "".join(agent.lines))

    def test_without_its_keeper_calls_are_not_implemented(self):
        agent = self.start_agent()
        self.start_container("left", agent, marker="left-bar", **MKDIR,
                             program="until [ -e /tmp/go ]; do :; done; mkdir /tmp/foo 2>/tmp/said; sleep 1000")
        engine = engine_of(agent)
        self.addCleanup(os.close, engine)
        agent.stop(signal.SIGKILL)
        await_end(engine)
        said = os.path.join(self.rootfs, "tmp", "said")
        open(os.path.join(self.rootfs, "tmp", "go"), "wb").close()
        self.wait_until(lambda: os.path.exists(said) and os.path.getsize(said) > 0, "mkdir says nothing")
        with open(said, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mkdir: can't create directory '/tmp/foo': Function not implemented\n")

    def test_a_call_fails_with_the_error_of_the_metadata(self):
        agent = self.start_agent()
        result = self.run_program("medium", agent, "touch /dev/shm/foo && chmod 777 /dev/shm/foo",
                                  traps=["chmod", "fchmod", "fchmodat"],
                                  metadata="ERRNO=chmod:ENOMEDIUM,fchmod:ENOMEDIUM,fchmodat:ENOMEDIUM")
        self.assertEqual((result.returncode, result.stdout), (1, "chmod: /dev/shm/foo: No medium found\n"))

    def test_a_trapped_write_is_continued_or_refused_by_the_runtime(self):
        agent = self.start_agent()
        if ARGS.runtime == "runc":  # it needs write itself to send the listener; crun has a process more for that
            self.assert_fails_to_run("write", agent, "SCMP_ACT_NOTIFY cannot be used for the write syscall",
                                     traps=["write"])
        else:
            self.assertEqual(self.run_program("write", agent, "echo done", traps=["write"]).stdout, "done\n")

    def test_a_hook_of_the_container_inherits_no_descriptor(self):
        agent = self.start_agent()

        def change(config):
            # ls has its own of the directory open beside the first three.
            config["hooks"] = {"startContainer": [{
                "path": "/bin/sh", "args": ["sh", "-c", "ls /proc/self/fd | wc -l >/tmp/descriptors"]}]}

        result = self.run_program("hook", agent, "true", change=change, traps=["mkdir"])
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(os.path.join(self.rootfs, "tmp", "descriptors"), encoding="ascii") as file:
            self.assertEqual(int(file.read()), 4)

    # ---- beyond

    def test_containers_at_the_same_time_have_their_own_suffixes(self):
        agent = self.start_agent()
        results = {}

        def run(name):
            results[name] = self.run_program(name, agent, f"for i in 1 2 3 4 5; do mkdir /tmp/{name}.$i; done",
                                             traps=["mkdir"], metadata=f"MKDIR_TMPL=-of-{name}")

        threads = [threading.Thread(target=run, args=(f"many{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({name: result.returncode for name, result in results.items()}, dict.fromkeys(results, 0))
        self.assertEqual(sorted(os.listdir(os.path.join(self.rootfs, "tmp"))),
                         sorted(f"many{i}.{j}-of-many{i}" for i in range(4) for j in range(1, 6)))

    def test_a_container_is_killed_for_a_call(self):
        agent = self.start_agent()
        result = self.run_program("killed", agent, "(sleep 1000 & mkdir /tmp/x); echo survived", traps=["mkdir"],
                                  metadata="DEFAULT_ACTION=kill-container")
        self.assertNotEqual(result.returncode, 0)
        # What mkdir says of the refusal may still come out, before the first process has taken it along.
        self.assertNotIn("survived", result.stdout)
        agent.wait_for(r"container killed: ended \(0 listeners left")

    def test_a_container_is_frozen_for_a_call_or_the_log_says_that_it_cannot_be(self):
        agent = self.start_agent()
        self.start_container("frozen", agent, program="chmod 700 /tmp/frozen 2>/tmp/said; sleep 1000",
                             traps=["chmod", "fchmodat"], metadata="DEFAULT_ACTION=freeze-container")
        said = os.path.join(self.rootfs, "tmp", "said")

        def paused():
            return '"status": "paused"' in self.runtime("state", "frozen").stdout

        if os.getuid() == 0:
            self.addCleanup(self.runtime, "resume", "frozen")  # or it could not be deleted
            self.wait_until(paused, "the container goes on:\n" + "".join(agent.lines))
            self.assertEqual(os.path.getsize(said), 0)
            self.assertEqual(self.runtime("resume", "frozen").returncode, 0)
        else:  # a rootless container has no cgroup of its own here
            agent.wait_for(r"warning: container frozen cannot be frozen as a whole, which its policy wants: ")
        self.wait_until(lambda: os.path.exists(said) and os.path.getsize(said) > 0, "chmod says nothing")
        with open(said, encoding="utf-8") as file:
            self.assertEqual(file.read(), "chmod: /tmp/frozen: Operation not permitted\n")

    def test_an_agent_says_once_that_it_has_no_power_over_a_container(self):
        if os.getuid() != 0:
            self.skipTest("an ordinary user has no containers of somebody else")
        private = os.path.join(self.folder, "other")
        os.mkdir(private)
        os.chown(private, OTHER_USER, OTHER_USER)
        os.chmod(self.folder, 0o755)
        if not self.can_execute(ARGS.agent):
            self.skipTest(f"an ordinary user may not execute {ARGS.agent}")
        agent = Agent(private, self.tag, user=OTHER_USER, environment={"XDG_RUNTIME_DIR": private})
        self.addCleanup(agent.stop)
        self.assertEqual(agent.ready, b"\x01", "".join(agent.lines))
        program = "for i in 1 2 3; do mkdir /tmp/x; done; chmod 777 /; nc 203.0.113.1 1; /bin/true; echo end"
        result = self.run_program("roots", agent, program,
                                  traps=["mkdir", "chmod", "fchmodat", "connect", "execve"],
                                  metadata="MKDIR_TMPL=-x\nERRNO=chmod:EBADMSG,fchmodat:EBADMSG\n"
                                           "EXEC_PATTERN=/bin/true\nEXEC_DURATION=1h")
        # What takes no more than the listener is done all the same; the container's own network has no way out.
        self.assertEqual(result.stdout, "mkdir: can't create directory '/tmp/x': Operation not permitted\n" * 3 +
                         "chmod: /: Bad message\n"
                         "nc: can't connect to remote host (203.0.113.1): Network is unreachable\nend\n", result.stderr)
        agent.wait_for(r"container roots: ended")
        told = [line for line in agent.lines if "no process gets there" in line]
        self.assertEqual(len(told), 1, "".join(agent.lines))
        self.assertRegex(told[0], r"warning: container roots-\w+: calls that are to be done inside it fail with EPERM, "
                                  r"as no process gets there: (Permission denied|Operation not permitted) \(")

    def can_execute(self, program):
        return subprocess.run(["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", program,
                               "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, timeout=PATIENCE, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
