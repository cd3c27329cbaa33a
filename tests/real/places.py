# SPDX-License-Identifier: Apache-2.0
"""Where a program can run: natively, under `shunt run`, and in containers of real runtimes that `shunt agent` serves.

All places have the same two verbs, run() and serve(), and the same view of the files, so that a test is written once.
Whether a program's connections were really moved to the host's network is told by two witnesses that know nothing of each
other: shunt's counters, and the kernel's count of connections in the container's own network, which has to stay at zero.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

USER_ID = 7331  # the arena's shunt-tester, with subordinate ids from 700000
DATABASE_USER_ID = 1000  # in the container, for programs that refuse to be root
HOST, PEER, PEER6 = "203.0.113.1", "203.0.113.2", "fd00:113::2"
PATIENCE = 60  # seconds for what takes a few at most
BASE_PROFILE = "/usr/share/containers/seccomp.json"

# Runs the command and passes SIGTERM on to it; then says how many TCP connections this network has seen.
WRAPPER = """
report=$1; shift
"$@" & child=$!
trap 'kill -TERM $child 2>/dev/null' TERM
wait $child; status=$?
while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
cat /proc/net/snmp >"$report"
exit $status
"""


class Failure(Exception):
    """What a test found wrong, in words."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def as_user(command):
    return ["setpriv", "--reuid", str(USER_ID), "--regid", str(USER_ID), "--init-groups", "--inh-caps=-all",
            "--bounding-set=+all", "--", *command]


def as_database_user(command):
    """Inside of a container: a rootless runc cannot take the listener of a process that begins as another user."""
    user = str(DATABASE_USER_ID)
    return ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--", *command]


def eventually(what, condition):
    """Waits for `condition` to become true; it may raise Failure to say that it never will."""
    end = time.monotonic() + PATIENCE
    while not condition():
        check(time.monotonic() < end, f"{what}: not within {PATIENCE} s")
        time.sleep(0.02)


class Arena:
    """What all places of a test share: the files, the far machine and the privileged lock server."""

    def __init__(self, shunt, clients):
        self.work = tempfile.mkdtemp(prefix="real.")
        os.chmod(self.work, 0o755)
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
            "HOME": self.folder("home"), "TMPDIR": self.folder("tmp"), "USER": "shunt-tester",
            "XDG_RUNTIME_DIR": self.folder("runtime", 0o700), "GIT_CONFIG_NOSYSTEM": "1",
            # Else git makes up an address and looks the machine's name up, which is in vain here and takes ten seconds.
            "GIT_COMMITTER_NAME": "tester", "GIT_COMMITTER_EMAIL": "tester@example.org"}
        # The build tree may be out of the ordinary user's reach.
        self.shunt = shutil.copy(shunt, self.work)
        self.clients = shutil.copytree(clients, os.path.join(self.work, "clients"))
        for folder, _, names in os.walk(self.clients):
            os.chmod(folder, 0o755)
            for name in names:
                os.chmod(os.path.join(folder, name), 0o755)
        self.lock_socket = os.path.join(self.work, "lock.sock")
        self.processes = []
        self.servers = {}

    def folder(self, name, mode=0o777):
        path = os.path.join(self.work, name)
        os.makedirs(path, exist_ok=True)
        os.chown(path, USER_ID, USER_ID)
        os.chmod(path, mode)
        return path

    def write(self, name, text):
        path = os.path.join(self.work, name)
        with open(path, "w" if isinstance(text, str) else "wb") as file:
            file.write(text)
        os.chmod(path, 0o644)
        return path

    def lend_lock(self):
        """Starts the privileged step, once."""
        if os.path.exists(self.lock_socket):
            return
        self.spawn([self.shunt, "lock-server", "--socket", self.lock_socket], "lock-server")
        eventually("the lock server", lambda: os.path.exists(self.lock_socket))

    def spawn(self, command, name, **keywords):
        log = open(os.path.join(self.work, name + ".log"), "wb")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment,
                                   start_new_session=True, **keywords)
        log.close()
        self.processes.append(process)
        return process

    def log(self, name):
        with open(os.path.join(self.work, name + ".log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-3000:]

    def far_command(self, command):
        return ["nsenter", "--net=" + os.environ["ARENA_FAR"], *as_user(command)]

    def far(self, command, **keywords):
        """Runs a program on the far machine."""
        return subprocess.run(self.far_command(command), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              env=self.environment, timeout=PATIENCE, check=False, **keywords)

    def far_output(self, command, turned_away=lambda output: False):
        """As Place.run's."""
        result = self.far(command)
        end = time.monotonic() + PATIENCE
        while turned_away(result.stdout) and time.monotonic() < end:
            result = self.far(command)
        check(result.returncode == 0, f"{command} on the far machine: status {result.returncode}: "
              f"{result.stdout[-1000:]}{result.stderr[-1000:]}")
        return result.stdout

    def far_server(self, name, command, probe):
        """Starts a server on the far machine, once, and waits until `probe` succeeds there."""
        if name in self.servers:
            return
        process = self.servers[name] = self.spawn(self.far_command(command), name)

        def answers():
            check(process.poll() is None, f"{name} on the far machine has ended:\n{self.log(name)}")
            return self.far(probe).returncode == 0
        eventually(f"{name} on the far machine", answers)

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.work, ignore_errors=True)


class Result:
    """How a program ended, and what the two witnesses say of its connections."""

    def __init__(self, status, output, errors):
        self.status = status
        self.output = output
        self.errors = errors
        self.counters = None  # None: natively there are none
        self.opened = self.accepted = 0  # connections in the container's own network

    def described(self):
        return f"status {self.status}; output: {self.output[-1500:]}; errors: {self.errors[-3000:]}"


class Place:
    """A native run. The others build on it."""

    name = "native"
    publishes = True  # published ports move to the host's network
    native = True

    def __init__(self, arena):
        self.arena = arena
        self.number = 0

    @staticmethod
    def missing():
        """The first program that is not here, or None."""
        return None

    def outside_port(self, port):
        """The host's port at which a published one is reachable."""
        return port

    def scratch(self):
        """A fresh folder in which the program may write."""
        self.number += 1
        return self.arena.folder(f"{self.name}.{self.number}")

    def command(self, command, folder, ports, database):
        """What to execute, as whom; also what makes ready for it."""
        del folder, ports, database
        return as_user(command)

    def witness(self, folder, result):
        """Fills in the counts."""

    def start(self, command, ports, database):
        folder = self.scratch()
        full = self.command(command, folder, ports, database)
        with open(folder + "/output", "wb") as output, open(folder + "/errors", "wb") as errors:
            process = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, cwd=folder,
                                       env=self.arena.environment, start_new_session=True)
        self.arena.processes.append(process)
        try:
            self.attach_network(folder, process)
        except Failure as failure:
            process.kill()
            raise Failure(f"{failure}: {self.finish(folder, process).described()}") from failure
        return folder, process

    def attach_network(self, folder, process):
        """Gives a container that has started its ordinary network, where nobody else does."""

    def finish(self, folder, process):
        try:
            status = process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = f"none within {PATIENCE} s"
        with open(folder + "/output", encoding="utf-8", errors="replace") as output, \
                open(folder + "/errors", encoding="utf-8", errors="replace") as errors:
            result = Result(status, output.read(), errors.read())
        try:
            self.witness(folder, result)
        except Failure as failure:
            raise Failure(f"{failure}: {result.described()}") from failure
        return result

    def run(self, command, accelerated, database=False, turned_away=lambda output: False):
        """What the program printed. It has to succeed, with so many connects moved ("N+": at least).

        Whom the server has `turned_away`, as what it printed says, may come again.
        """
        result = self.finish(*self.start(command, [], database))
        end = time.monotonic() + PATIENCE
        while turned_away(result.output) and time.monotonic() < end:
            result = self.finish(*self.start(command, [], database))
        check(result.status == 0, f"{command}: {result.described()}")
        if not self.native:
            self.check_connects(command, result, accelerated)
        return result.output

    def check_connects(self, command, result, accelerated):
        count = result.counters.get("accelerated", 0)
        right = count >= int(accelerated[:-1]) if isinstance(accelerated, str) else count == accelerated
        check(right, f"{command}: {accelerated} connects should have been moved: {result.counters}; "
              f"{result.described()}")
        check(result.opened == 0, f"{command}: {result.opened} connects went the ordinary way: {result.counters}")

    @contextlib.contextmanager
    def serve(self, command, port, probe, accelerated=0, database=False, ends=(0, 143)):
        """A server with a published port, while the body runs; `probe` succeeds on the far machine when it is ready."""
        folder, process = self.start(command, [port], database)

        def answers():
            if process.poll() is not None:
                raise Failure(f"{command} has ended: {self.finish(folder, process).described()}")
            return self.arena.far(probe).returncode == 0
        try:
            eventually(f"{command} as seen from outside", answers)
            yield
        except Failure as failure:
            process.terminate()
            raise Failure(f"{failure}\n  the server: {self.finish(folder, process).described()}") from failure
        process.terminate()
        result = self.finish(folder, process)
        # Killed by the signal: -15 natively, as a shell puts it in the wrapper.
        status = 128 - result.status if isinstance(result.status, int) and result.status < 0 else result.status
        check(status in ends, f"{command} ended with {result.described()}")
        if self.native:
            return
        self.check_connects(command, result, accelerated)
        if self.publishes:
            check(result.counters.get("published", 0) >= 1, f"{command}: nothing published: {result.counters}")
            check(result.accepted == 0, f"{command}: {result.accepted} clients came the ordinary way")


class Container(Place):
    """Everything that is not native: the wrapper, and what it reports."""

    native = False

    def wrapped(self, command, folder):
        return ["/bin/sh", "-c", WRAPPER, "wrapper", folder + "/report", *command]

    def counter_text(self, folder, result):
        raise NotImplementedError

    def witness(self, folder, result):
        lines = re.findall(r"counters: (.*)", self.counter_text(folder, result))
        check(len(lines) == 1, "no line with counters")
        result.counters = {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", lines[0])}
        try:
            with open(folder + "/report", encoding="ascii") as file:
                names, values = (line.split() for line in file if line.startswith("Tcp:"))
        except (OSError, ValueError) as error:
            raise Failure(f"no report of the container's network ({error})") from error
        tcp = dict(zip(names, values))
        result.opened, result.accepted = int(tcp["ActiveOpens"]), int(tcp["PassiveOpens"])


class ShuntRun(Container):
    """`shunt run` with slirp4netns, by an ordinary user."""

    def __init__(self, arena, locked_by_program):
        super().__init__(arena)
        self.publishes = locked_by_program
        self.name = "run-program" if locked_by_program else "run-device"

    @staticmethod
    def missing():
        return None if shutil.which("slirp4netns") else "slirp4netns"

    def command(self, command, folder, ports, database):
        lock = self.arena.lock_socket
        if self.publishes:
            self.arena.lend_lock()
        else:
            lock = self.arena.work + "/nobody-here.sock"
        options = [f"--publish={self.outside_port(port)}:{port}" for port in ports]
        if database:
            options += ["--user", str(DATABASE_USER_ID)]
        return as_user([self.arena.shunt, "run", "-v", "--net", "slirp4netns", "--lock-socket", lock, *options, "--",
                        *self.wrapped(command, folder)])

    def counter_text(self, folder, result):
        lock = "eBPF socket filter" if self.publishes else "network device only"
        check(f"locks: {lock}" in result.errors, f"the lock should be: {lock}")
        return result.errors


class Served(Container):
    """A container that `shunt agent` serves; one agent for each, so that the counters are its own."""

    runtime_user = staticmethod(as_user)
    # Another number outside than inside: the program must not see it.
    shift = 10000

    def __init__(self, arena):
        super().__init__(arena)
        self.tag = os.urandom(4).hex()
        self.agent = None

    def outside_port(self, port):
        return port + self.shift

    def start_agent(self, folder):
        self.arena.lend_lock()
        ready, ready_write = os.pipe()
        with open(folder + "/agent.log", "wb") as log:
            self.agent = subprocess.Popen(
                self.runtime_user([self.arena.shunt, "agent", "--socket", folder + "/agent.sock", "--lock-socket",
                                   self.arena.lock_socket, "--ready-fd", str(ready_write)]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.arena.environment, pass_fds=[ready_write],
                start_new_session=True)
        self.arena.processes.append(self.agent)
        os.close(ready_write)
        with open(ready, "rb") as pipe:
            check(pipe.read() == b"\x01", f"the agent did not start: {self.agent_log(folder)}")

    @staticmethod
    def agent_log(folder):
        with open(folder + "/agent.log", encoding="utf-8") as file:
            return file.read()

    def profile(self, folder, ports):
        """The seccomp profile, over the one that people use."""
        command = [self.arena.shunt, "profile", "--listener", folder + "/agent.sock"]
        if os.path.exists(BASE_PROFILE):
            command += ["--base", BASE_PROFILE]
        if ports:
            wishes = ",".join(f"{self.outside_port(port)}:{port}" for port in ports)
            command += ["--renumbered", "--metadata", "shunt.publish=" + wishes]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def connect_network(self, which, who):
        """Starts slirp4netns for a network namespace; it stays until the end of the test."""
        name = f"{self.name}.{self.number}.slirp4netns"
        ready, ready_write = os.pipe()
        command = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={ready_write}",
                   *which, "tap0"]
        self.arena.spawn(who(command), name, pass_fds=[ready_write])
        os.close(ready_write)
        with open(ready, "rb") as pipe:
            check(pipe.read(1) == b"1", f"slirp4netns did not start: {self.arena.log(name)}")

    def rootfs(self):
        """A root directory into which everything of the host's is mounted that programs need."""
        root = os.path.join(self.arena.work, "rootfs")
        if not os.path.exists(root):
            self.arena.folder("rootfs", 0o755)
            for name in ("usr", "etc", "proc", "sys", "dev", "tmp", "run", "var", self.arena.work[1:]):
                os.makedirs(os.path.join(root, name))
            for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
                if os.path.islink("/" + name):
                    os.symlink(os.readlink("/" + name), os.path.join(root, name))
            subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", root], check=True)
        return root

    def mounts(self):
        return ["/usr", "/etc", self.arena.work]

    def counter_text(self, folder, result):
        try:
            eventually("the end of the container in the agent's log",
                       lambda: "ended (0 listeners left" in self.agent_log(folder))
        finally:
            result.errors += "\nagent: " + self.agent_log(folder)
        self.agent.terminate()
        check(self.agent.wait(timeout=PATIENCE) == 0, "the agent did not end as it should")
        text = self.agent_log(folder)
        check(" error: " not in text, "errors in the agent's log")
        return text


class Oci(Served):
    """runc or crun, rootless.

    Its network comes when the container runs, and its program waits for it: a hook, which would come earlier, may not
    look into the container that crun is about to make.
    """

    def __init__(self, arena, runtime):
        super().__init__(arena)
        self.runtime = runtime
        self.name = runtime

    def missing(self):
        return next((name for name in (self.runtime, "slirp4netns", "newuidmap") if not shutil.which(name)), None)

    def command(self, command, folder, ports, database):
        self.start_agent(folder)
        spec = subprocess.run(as_user([self.runtime, "spec", "--rootless"]), cwd=folder, env=self.arena.environment,
                              capture_output=True, text=True, check=False)
        check(spec.returncode == 0, f"{self.runtime} spec: {spec.stderr}")
        with open(folder + "/config.json", encoding="utf-8") as file:
            config = json.load(file)
        config["root"] = {"path": self.rootfs(), "readonly": False}
        if database:
            command = as_database_user(command)
        os.mkfifo(folder + "/go")
        command = ["/bin/sh", "-c", 'echo >begun; read -r go <go; exec "$@"', "waiter", *command]
        config["process"].update(terminal=False, args=self.wrapped(command, folder), cwd=folder,
                                 env=[f"{key}={value}" for key, value in self.arena.environment.items()])
        # What Docker and Podman grant that programs here need: nginx starts its workers as another user.
        for capabilities in config["process"]["capabilities"].values():
            capabilities[:] = sorted({*capabilities, "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE",
                                      "CAP_FOWNER"})
        config["process"].pop("rlimits", None)
        config["mounts"].append({"destination": "/tmp", "source": "tmpfs", "type": "tmpfs"})
        config["mounts"] += [{"destination": path, "source": path, "type": "none", "options": ["rbind", "rw"]}
                             for path in self.mounts()]
        linux = config["linux"]
        linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] != "network"]
        linux["namespaces"].append({"type": "network"})
        for kind in ("uidMappings", "gidMappings"):
            linux[kind] = [{"containerID": 0, "hostID": USER_ID, "size": 1},
                           {"containerID": 1, "hostID": 700000, "size": 65535}]
        linux["seccomp"] = json.loads(self.profile(folder, ports))
        with open(folder + "/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        return as_user([self.runtime, "--root", self.arena.folder("state", 0o755), "run", "--bundle", folder,
                        "--pid-file", folder + "/pid", f"real-{self.tag}-{self.number}"])

    def attach_network(self, folder, process):
        """Gives the container an ordinary network, and then lets the program in it go."""
        def has_begun():
            check(process.poll() is None, "the container did not start")
            with contextlib.suppress(FileNotFoundError), open(folder + "/begun", encoding="ascii") as file:
                return file.read() == "\n"
            return False
        eventually("the container", has_begun)
        with open(folder + "/pid", encoding="ascii") as file:
            self.connect_network([file.read()], as_user)
        with open(folder + "/go", "wb", buffering=0) as fifo:
            fifo.write(b"\n")


class Containerd(Served):
    """containerd's ctr, as root, in a network namespace that slirp4netns connects."""

    name = "ctr"

    @staticmethod
    def runtime_user(command):
        return command

    @staticmethod
    def missing():
        return next((name for name in ("containerd", "ctr", "runc", "slirp4netns") if not shutil.which(name)), None)

    def daemon(self):
        """The socket of a containerd of our own."""
        folder = os.path.join(self.arena.work, "containerd")
        if not os.path.exists(folder):
            # Its shims have their sockets in /run, wherever its own state is.
            subprocess.run(["mount", "-t", "tmpfs", "run", "/run"], check=True)
            os.makedirs(folder)
            config = self.arena.write("containerd/config.toml", f"""version = 2
                root = "{folder}/root"
                state = "{folder}/state"
                disabled_plugins = ["io.containerd.grpc.v1.cri"]
                [grpc]
                address = "{folder}/socket"
                """)
            self.arena.spawn(["containerd", "-c", config], "containerd.daemon")
            eventually("containerd", lambda: subprocess.run(["ctr", "-a", folder + "/socket", "version"], check=False,
                                                            capture_output=True).returncode == 0)
        return folder + "/socket"

    def network(self, folder):
        """A network namespace, by its path."""
        path = folder + "/network"
        with open(path, "wb"):
            subprocess.run(["unshare", "--net=" + path, "true"], check=True)
        self.connect_network(["--netns-type=path", path], lambda command: command)
        return path

    def command(self, command, folder, ports, database):
        self.start_agent(folder)
        if database:
            command = as_database_user(command)
        profile = self.arena.write(os.path.join(folder, "profile.json"), self.profile(folder, ports))
        options = [f"--env={name}={value}" for name, value in self.arena.environment.items()]
        options += [f"--mount=type=bind,src={path},dst={path},options=rbind:rw" for path in self.mounts()]
        return ["ctr", "-a", self.daemon(), "run", "--rm", "--seccomp", "--seccomp-profile", profile, "--cwd", folder,
                "--with-ns", "network:" + self.network(folder), *options, "--rootfs", self.rootfs(),
                f"real-{self.tag}-{self.number}", *self.wrapped(command, folder)]


def all_places(arena):
    """Native first."""
    return [Place(arena), ShuntRun(arena, False), ShuntRun(arena, True), Oci(arena, "runc"), Oci(arena, "crun"),
            Containerd(arena)]
