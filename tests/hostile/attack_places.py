# SPDX-License-Identifier: Apache-2.0
"""Where the hostile program runs: natively, under `shunt run`, and in containers of real runtimes with `shunt agent`.

A place starts processes that are talked to by pipes: the attacker, receivers of its sockets (executed beside it, in
another container, outside of any filter), and a bystander. None of its containers has an ordinary network, so whatever
arrives at the host comes by shunt.
"""
import json
import os
import select
import shutil
import subprocess
import time

USER_ID = 7331  # the arena's shunt-tester, with subordinate ids from 700000
PATIENCE = 30  # seconds for what takes one at most
CAPABILITIES = ["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID",
                "CAP_SYS_PTRACE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL"]


def as_user(command):
    return ["setpriv", "--reuid", str(USER_ID), "--regid", str(USER_ID), "--init-groups", "--inh-caps=-all",
            "--bounding-set=+all", "--", *command]


class Process:
    """One that says lines, and ends with its input."""

    def __init__(self, command, log, **keywords):
        self.log = log
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                                            bufsize=0, **keywords)
        self.buffer = b""

    def say(self, line):
        self.process.stdin.write((line + "\n").encode())

    def hear(self):
        end = time.monotonic() + PATIENCE
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self.process.stdout.fileno(), 65536) if ready else b""
            if not more:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    raise AssertionError(f"nothing more from {self.process.args}: {log.read()[-3000:]}")
            self.buffer += more
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def stop(self):
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Place:
    """The attacks' home: natively, and with every right, so that each attack gets as far as it can."""

    name = "native"
    native = True
    engine_uid = 0
    lock = None
    publishes = True
    accelerates = True

    def __init__(self, shunt, attacker, environment):
        self.work = os.path.join(os.environ["TMPDIR"], self.name)
        self.shared = self.folder("shared")
        # Where everybody may execute it, and once where nobody may look into it.
        self.shunt = self.copy(shunt, self.work, 0o755)
        self.attacker = self.copy(attacker, self.shared, 0o755)
        self.unreadable = self.copy(attacker, self.shared, 0o711, "unreadable")
        self.environment = {**environment, "HOME": self.shared, "TMPDIR": self.shared,
                            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                            "XDG_RUNTIME_DIR": self.folder("runtime", 0o700)}
        self.number = 0
        self.running = []
        self.tag = os.urandom(4).hex()

    @staticmethod
    def missing():
        """A program that is not here, or None."""
        return None

    def folder(self, name, mode=0o777):
        path = os.path.join(self.work, name)
        os.makedirs(path)
        os.chmod(self.work, 0o755)
        os.chown(path, USER_ID, USER_ID)
        os.chmod(path, mode)
        return path

    @staticmethod
    def copy(program, folder, mode, name=None):
        path = shutil.copy(program, os.path.join(folder, name or os.path.basename(program)))
        os.chmod(path, mode)
        return path

    def spawn(self, command, **keywords):
        self.number += 1
        process = Process(command, f"{self.work}/log.{self.number}", env=self.environment, cwd=self.shared, **keywords)
        self.running.append(process)
        return process

    def begin(self):
        """Starts what serves the containers."""

    def start(self, arguments, publish=None, beside=None):
        """The attacker's program in a container of its own, or in that which the name `beside` has."""
        del publish, beside
        return self.spawn([self.attacker, *arguments])

    def start_outside(self, arguments):
        """Without a filter, as the engine's user."""
        command = [self.attacker, *arguments]
        return self.spawn(command if self.engine_uid == 0 else as_user(command))

    def locks(self):
        """What the engine says of its locks."""
        return ""

    def stop(self):
        for process in reversed(self.running):
            process.stop()
        self.running.clear()


class ShuntRun(Place):
    native = False
    engine_uid = USER_ID
    executes = False

    def __init__(self, shunt, attacker, environment, lock, lock_socket):
        self.name = "run-" + lock
        self.lock = lock
        self.publishes = lock == "program"
        self.lock_socket = lock_socket if lock == "program" else "/nonexistent"
        super().__init__(shunt, attacker, environment)

    def start(self, arguments, publish=None, beside=None):
        # With a device lock nothing is accelerated if an IPv4 network is ignored, so it has to keep off without.
        ignore = ["--ignore", "10.99.0.0/16", "--ignore", "fd01:99::/32"] if self.lock == "program" else []
        ports = ["-p", publish] if publish and self.publishes else []
        return self.spawn(as_user([self.shunt, "run", "-v", "--net", "none", "--lock-socket", self.lock_socket, *ignore,
                                   *ports, "--", self.attacker, *arguments]))

    def locks(self):
        with open(self.running[0].log, encoding="utf-8") as log:
            return log.read()


class Agent(Place):
    """A runtime with `shunt agent`, both by root or both by the ordinary user.

    The container has the runtime's default capabilities ("root"), or all that count in a user namespace of its own
    ("mapped" by root, "user"). "hidden" is one like "root" that the agent cannot see: to it every caller is pid 0.
    """

    native = False

    def __init__(self, shunt, attacker, environment, runtime, who, lock, lock_socket):
        self.name = f"{runtime}-{who}"
        self.runtime = runtime
        self.who = who
        self.lock = lock
        self.publishes = lock == "program"
        self.accelerates = lock is not None
        self.engine_uid = USER_ID if who == "user" else 0
        self.maps_users = who in ("mapped", "user")
        self.lock_socket = lock_socket if lock == "program" else "/nonexistent"
        super().__init__(shunt, attacker, environment)
        self.agent = None
        self.containers = []

    def missing(self):
        return None if shutil.which(self.runtime) else self.runtime

    def command(self, command):
        return as_user(command) if self.who == "user" else command

    def begin(self):
        config = os.path.join(self.shared, "agent.yaml")
        with open(config, "w", encoding="ascii") as file:
            if self.lock == "program":
                file.write('ignore: [10.99.0.0/16, "fd01:99::/32"]\n')
        ready, ready_write = os.pipe()
        apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"] if self.who == "hidden" else []
        self.agent = self.spawn(
            self.command([*apart, self.shunt, "agent", "--socket", self.shared + "/agent.sock", "--config", config,
                          "--lock-socket", self.lock_socket, "--ready-fd", str(ready_write)]), pass_fds=[ready_write])
        os.close(ready_write)
        with open(ready, "rb", buffering=0) as pipe:
            if pipe.read(1) != b"\x01":
                raise AssertionError(f"the agent does not start: {self.locks()}")

    def locks(self):
        with open(self.agent.log, encoding="utf-8") as log:
            return log.read()

    def bundle(self, name, arguments, publish):
        folder = self.folder(name)
        rootfs = self.folder(name + "/rootfs")
        for inner in ("proc", "sys", "dev", "tmp", self.shared[1:]):
            os.makedirs(os.path.join(rootfs, inner))
        subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", rootfs], check=True)
        rootless = ["--rootless"] if self.maps_users else []
        subprocess.run(self.command([self.runtime, "spec", *rootless]), cwd=folder, check=True, env=self.environment)
        with open(folder + "/config.json", encoding="utf-8") as file:
            config = json.load(file)
        config["root"] = {"path": rootfs, "readonly": False}
        config["process"].update(terminal=False, args=[self.attacker, *arguments], cwd="/",
                                 env=[f"{key}={value}" for key, value in self.environment.items()])
        config["process"].pop("rlimits", None)
        config["process"]["noNewPrivileges"] = False
        config["mounts"].append({"destination": self.shared, "source": self.shared, "type": "none",
                                 "options": ["rbind", "rw"]})
        linux = config["linux"]
        linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] != "network"]
        linux["namespaces"].append({"type": "network"})
        if self.maps_users:
            # Root of its own user namespace, with all that this gives.
            for capabilities in config["process"]["capabilities"].values():
                capabilities[:] = CAPABILITIES
            for kind in ("uidMappings", "gidMappings"):
                linux[kind] = [{"containerID": 0, "hostID": USER_ID, "size": 1},
                               {"containerID": 1, "hostID": 700000, "size": 65535}]
        metadata = ["--renumbered", "--metadata", "shunt.publish=" + publish] if publish and self.publishes else []
        profile = subprocess.run([self.shunt, "profile", "--listener", self.shared + "/agent.sock", *metadata],
                                 check=True, stdout=subprocess.PIPE, text=True).stdout
        linux["seccomp"] = json.loads(profile)
        with open(folder + "/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        return folder

    def start(self, arguments, publish=None, beside=None):
        runtime = self.command([self.runtime, "--root", f"{self.shared}/state"])
        if beside is not None:
            return self.spawn([*runtime, "exec", beside, self.attacker, *arguments])
        name = f"attack-{self.tag}-{len(self.containers)}"
        self.containers.append(name)
        return self.spawn([*runtime, "run", "--bundle", self.bundle(name, arguments, publish), name])

    def stop(self):
        runtime = self.command([self.runtime, "--root", f"{self.shared}/state"])
        for name in self.containers:
            subprocess.run([*runtime, "delete", "--force", name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
        self.containers.clear()
        super().stop()


PLACES = ["native", "run-program", "run-device", "runc-root", "runc-mapped", "runc-hidden", "runc-user", "crun-user"]


def make_place(name, shunt, attacker, environment, lock_socket):
    if name == "native":
        return Place(shunt, attacker, environment)
    kind, which = name.split("-")
    if kind == "run":
        return ShuntRun(shunt, attacker, environment, which, lock_socket)
    lock = None if which == "hidden" else "device" if kind == "crun" else "program"
    return Agent(shunt, attacker, environment, kind, which, lock, lock_socket)
