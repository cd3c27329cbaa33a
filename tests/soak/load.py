# SPDX-License-Identifier: Apache-2.0
"""The load of a soak: an agent, containers that stay, and containers that come and go.

Everything runs in an arena, as its ordinary user; only the lock server is root's. What a container does stands in
soak_guest.cc. Whatever does not go as it should is kept in Load.troubles, in words.
"""

import collections
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

USER_ID = 7331  # the arena's shunt-tester, with subordinate ids from 700000
PATIENCE = 60  # seconds for what takes a few at most, on a loaded machine
HOST_PORT, PORT = 18080, 8080
STAYING = ("steady", "killing", "hole", "publishing", "bad")  # soak_guest's manners that do not end


def as_user(command):
    return ["setpriv", "--reuid", str(USER_ID), "--regid", str(USER_ID), "--init-groups", "--inh-caps=-all", "--", *command]


class Failure(Exception):
    """The soak cannot go on; in words."""


class Agent:
    """`shunt agent`, with the processes that it consists of."""

    def __init__(self, load):
        self.socket = os.path.join(load.work, "user", "agent.sock")
        self.log_path = os.path.join(load.work, "agent.log")
        ready, ready_write = os.pipe()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                as_user([load.shunt, "agent", "--socket", self.socket, "--lock-socket", load.lock_socket,
                         "--ready-fd", str(ready_write)]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[ready_write], start_new_session=True,
                env=load.environment)
        load.processes.append(self.process)
        os.close(ready_write)
        with open(ready, "rb") as pipe:
            if pipe.read(1) != b"\x01":
                raise Failure("the agent did not start: " + self.log())

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def tree(self):
        """The pids of the agent's process and of all below it."""
        children = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="ascii", errors="replace") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry))
        found = [self.process.pid]
        for pid in found:  # grows meanwhile
            found += children.get(pid, [])
        return found

    def sample(self):
        """Sums over the tree: descriptors, resident KiB, threads. A process that ends meanwhile counts as nothing."""
        descriptors = resident = threads = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                count = len(os.listdir(f"/proc/{pid}/fd"))
                with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                    status = dict(line.split(":", 1) for line in file if ":" in line)
                descriptors += count
                resident += int(status.get("VmRSS", "0 kB").split()[0])
                threads += int(status["Threads"])
        return {"descriptors": descriptors, "resident": resident, "threads": threads}

    def kinds(self):
        """What its descriptors are, and how many of each, over the tree."""
        kinds = collections.Counter()
        for pid in self.tree():
            with contextlib.suppress(OSError):
                for number in os.listdir(f"/proc/{pid}/fd"):
                    kinds[re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{number}"))] += 1
        return kinds

    def counters(self):
        """What the engine has counted so far, by name: SIGUSR1 has it logged."""
        pattern = re.compile(r"counters: (.*)")
        before = len(pattern.findall(self.log()))
        for pid in self.tree():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
                blocked = int(re.search(r"SigBlk:\s*(\w+)", file.read())[1], 16)
                if blocked >> (signal.SIGUSR1 - 1) & 1:  # it reads signals from a descriptor; others would die of it
                    os.kill(pid, signal.SIGUSR1)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = pattern.findall(self.log())
            if len(found) > before:
                return {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", found[-1])}
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise Failure("the agent does not tell its counters: " + self.log()[-2000:])

    def stop(self):
        """Its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return None


class Load:
    """Starts everything; stop() ends the containers, close() the rest."""

    def __init__(self, shunt, guest):
        self.work = tempfile.mkdtemp(prefix="soak.")
        os.chmod(self.work, 0o755)
        user = os.path.join(self.work, "user")
        os.makedirs(user)
        os.chown(user, USER_ID, USER_ID)
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
                            "HOME": user, "XDG_RUNTIME_DIR": user, "USER": "shunt-tester"}
        # The build tree may be out of the ordinary user's reach.
        self.shunt = shutil.copy(shunt, self.work)
        self.guest = shutil.copy(guest, os.path.join(self.work, "soak_guest"))
        self.runtimes = [name for name in ("crun", "runc") if shutil.which(name)]
        self.lock_socket = os.path.join(self.work, "lock.sock")
        self.troubles = []
        self.latencies = []  # (when, how many, p50 us, p99 us), each second
        self.ended = {"containers": 0, "killed": 0, "shunt run": 0}
        self.processes = []
        self.staying = {}
        self.threads = []
        self.stopping = threading.Event()
        self.numbers = itertools.count(1)
        self.random = random.Random(1)
        self.tag = os.urandom(4).hex()
        self.rootfs = self.make_rootfs()
        self.profile = None
        self.agent = None

    def make_rootfs(self):
        root = os.path.join(self.work, "user", "rootfs")
        for name in ("proc", "sys", "dev"):
            os.makedirs(os.path.join(root, name))
        shutil.copy(self.guest, root)
        subprocess.run(["chown", "-R", f"{USER_ID}:{USER_ID}", root], check=True)
        return root

    def begin(self):
        """The agent and the peer, before any container."""
        self.spawn([self.shunt, "lock-server", "--socket", self.lock_socket], "lock-server")
        end = time.monotonic() + PATIENCE
        while not os.path.exists(self.lock_socket):
            if time.monotonic() > end:
                raise Failure("the lock server does not start")
            time.sleep(0.01)
        peer = self.spawn(as_user([self.guest, "peer"]), "peer", stdout=subprocess.PIPE)
        if peer.stdout.readline() != b"ready\n":
            raise Failure("the peer cannot listen")
        self.agent = Agent(self)
        self.profile = json.loads(subprocess.run([self.shunt, "profile", "--listener", self.agent.socket], check=True,
                                                 stdout=subprocess.PIPE).stdout)

    def load(self):
        for manner in STAYING:
            self.stay(manner)
        for work in (self.come_and_go, self.come_and_get_killed, self.run_by_shunt):
            thread = threading.Thread(target=self.guarded, args=(work,))
            self.threads.append(thread)
            thread.start()

    def guarded(self, work):
        while not self.stopping.is_set():
            try:
                work()
            except Exception as error:  # pylint: disable=broad-except  # whatever it is, the soak has failed
                self.troubles.append(f"{work.__name__}: {error!r}")
                return

    def spawn(self, command, name, **keywords):
        log = open(os.path.join(self.work, name + ".log"), "wb")
        keywords.setdefault("stdout", log)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, env=self.environment,
                                   start_new_session=True, **keywords)
        log.close()
        self.processes.append(process)
        return process

    def log(self, name):
        with open(os.path.join(self.work, name + ".log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    # ---- containers

    def oci(self, manner, *arguments, publish=False):
        """The command of a container, its name, and what its runtime is."""
        number = next(self.numbers)
        runtime = self.runtimes[number % len(self.runtimes)]
        name = f"soak-{self.tag}-{number}"
        folder = os.path.join(self.work, "user", name)
        os.makedirs(folder)
        os.chown(folder, USER_ID, USER_ID)
        subprocess.run(as_user([runtime, "spec", "--rootless"]), cwd=folder, env=self.environment, check=True)
        path = os.path.join(folder, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config["root"] = {"path": self.rootfs, "readonly": True}
        config["process"].update(terminal=False, args=["/soak_guest", manner, *arguments])
        linux = config["linux"]
        linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] not in ("network", "cgroup")]
        linux["namespaces"].append({"type": "network"})
        linux["seccomp"] = dict(self.profile)
        if publish:
            linux["seccomp"]["listenerMetadata"] = f"shunt.publish={HOST_PORT}:{PORT}"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        command = as_user([runtime, "--root", os.path.join(self.work, "user", "state"), "run", "--bundle", folder, name])
        return command, name, runtime

    def forget(self, name):
        shutil.rmtree(os.path.join(self.work, "user", name), ignore_errors=True)

    def remove(self, runtime, name):
        """Kills and removes a container; the runtime itself ends then."""
        return subprocess.run(as_user([runtime, "--root", os.path.join(self.work, "user", "state"), "delete", "--force", name]),
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, env=self.environment,
                              check=False)

    def stay(self, manner):
        command, name, runtime = self.oci(manner, publish=manner == "publishing")
        keywords = {"stdout": subprocess.PIPE} if manner == "steady" else {}
        process = self.spawn(command, manner, **keywords)
        self.staying[manner] = (process, name, runtime)
        if manner == "steady":
            thread = threading.Thread(target=self.read_latencies, args=(process.stdout,))
            self.threads.append(thread)
            thread.start()

    def read_latencies(self, pipe):
        for line in pipe:
            fields = line.split()
            with contextlib.suppress(ValueError):
                self.latencies.append((time.monotonic(), int(fields[0]), float(fields[1]), float(fields[2])))

    def finish(self, command, name):
        """Runs a command to its end, which has to be a success."""
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * PATIENCE,
                                env=self.environment, check=False)
        if result.returncode != 0:
            raise Failure(f"{name} ended with {result.returncode}: {result.stderr.decode(errors='replace')[-1000:]}")

    def come_and_go(self):
        command, name, runtime = self.oci("crowd", str(self.random.randrange(1, 40)))
        self.finish(command, f"{runtime} {name}")
        self.remove(runtime, name)
        self.forget(name)
        self.ended["containers"] += 1

    def come_and_get_killed(self):
        command, name, runtime = self.oci("crowd", "1000000")
        process = self.spawn(command, "killed")
        self.stopping.wait(self.random.random())  # at any moment of its life, its birth included
        end = time.monotonic() + PATIENCE
        while process.poll() is None:  # what has not been born yet cannot be killed
            self.remove(runtime, name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.2)
            if time.monotonic() > end:
                raise Failure(f"{runtime} {name} cannot be killed: {self.log('killed')}")
        self.processes.remove(process)
        self.remove(runtime, name)
        self.forget(name)
        self.ended["killed"] += 1

    def run_by_shunt(self):
        self.finish(as_user([self.shunt, "run", "--net", "none", "--lock-socket", self.lock_socket, "--", self.guest,
                             "crowd", "20"]), "shunt run")
        self.ended["shunt run"] += 1

    # ---- the end

    def look(self):
        """Notes who has ended that should have stayed."""
        for manner, (process, _, runtime) in self.staying.items():
            if process.poll() is not None and not self.stopping.is_set():
                self.troubles.append(f"the container \"{manner}\" of {runtime} has ended ({process.returncode}): "
                                     f"{self.log(manner).strip()}")
        if self.agent.process.poll() is not None:
            self.troubles.append("the agent has ended: " + self.agent.log()[-2000:])

    def stop(self):
        """Ends all containers."""
        self.stopping.set()
        for process, name, runtime in self.staying.values():
            end = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < end:
                self.remove(runtime, name)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1)
            self.remove(runtime, name)
        for thread in self.threads:
            thread.join(3 * PATIENCE)

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.work, ignore_errors=True)
