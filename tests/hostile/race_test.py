#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A hostile container races shunt's decision about its own connects, in real containers; nothing may get through.

    race_test.py --shunt PROGRAM --attacks PROGRAM [--tries N] [CLASS[.TEST]...]

    RunAsRoot RunAsUser RunWithDeviceLock     under `shunt run`, with the eBPF lock (the user has it from a lock server) or
                                              the device lock
    ServiceAsRoot ServiceAsUser               the same where the allowed address is a service, with backends that are down, too
    AgentAsRoot AgentAsUser                   under runc and `shunt agent`, with a bystander in a container beside it

The containers have no network but shunt's, so whatever a forbidden listener hears has come through shunt. There are two:
on the host's loopback, and on a network that is ignored. The number of tries of each attack is --tries, or
SHUNT_HOSTILE_TRIES in the environment, or small.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "publish"))
sys.dont_write_bytecode = True
import stage  # noqa: E402  (beside another test)

ALLOWED, LOOPBACK, IGNORED = stage.HOST, "127.0.0.1", "10.99.1.2"
IGNORED_NETWORK = "10.99.0.0/16"
ATTACKS = "address", "family", "length", "exchange", "reopen"
PATIENCE = 20  # seconds, for what takes none
PER_TRY = 0.02  # seconds; fifty times what it takes
SKIP = 77
ARGS = None


def as_user(command):
    """The command as the arena's ordinary user."""
    return ["setpriv", "--reuid", str(stage.USER), "--regid", str(stage.USER), "--init-groups", "--inh-caps=-all", "--",
            *command]


def environment_of_user(folder):
    return {**os.environ, "HOME": folder, "XDG_RUNTIME_DIR": folder, "USER": "shunt-tester"}


class Peers:
    """The listeners on the host that count who came."""

    def __init__(self):
        self.process = subprocess.Popen([ARGS.attacks, "peers", ALLOWED, LOOPBACK, IGNORED], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.port = self.process.stdout.readline().strip()

    def counts(self):
        output, _ = self.process.communicate("", timeout=PATIENCE)
        return dict(zip((ALLOWED, LOOPBACK, IGNORED), json.loads(output)))


class Races(unittest.TestCase):
    forbidden = LOOPBACK, IGNORED

    def setUp(self):
        stage.keep_time_wait(0)
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        os.chmod(self.folder, 0o777)
        self.peers = Peers()
        self.addCleanup(self.peers.process.stdout.close)
        self.addCleanup(self.peers.process.wait)
        self.addCleanup(self.peers.process.kill)

    def attack(self, name, forbidden):
        raise NotImplementedError

    def check(self, name):
        for forbidden in self.forbidden:
            with self.subTest(forbidden=forbidden):
                result = self.attack(name, forbidden)
                if result.returncode == SKIP:
                    self.skipTest(result.stdout.strip())
                self.assertEqual(result.returncode, 0, f"{result.stdout}{result.stderr}")
                line = result.stdout.strip().splitlines()[-1]
                print(f"{type(self).__name__} {name} {forbidden}: {line}", flush=True)
                told = json.loads(line)
                self.assertEqual((told["forbidden"], told["elsewhere"]), (0, 0), line)
                self.assertGreater(told["moved"], 0, "nothing was moved to the host, so nothing was attacked")
        self.look_at_bystander()
        counts = self.peers.counts()
        self.assertEqual((counts[LOOPBACK], counts[IGNORED]), (0, 0), "a forbidden listener has heard of the container")

    def look_at_bystander(self):
        """`shunt run` has one container."""

    def command(self, name, forbidden):
        return ["attack", name, str(ARGS.tries), self.peers.port, ALLOWED, forbidden]

    def test_the_address_is_flipped(self):
        self.check("address")

    def test_the_family_is_flipped(self):
        self.check("family")

    def test_the_arguments_of_a_socketcall_are_flipped(self):
        self.check("length")

    def test_a_moved_socket_is_put_under_the_descriptor(self):
        self.check("exchange")

    def test_the_descriptor_is_closed_and_opened_again(self):
        self.check("reopen")


class RunAsRoot(Races):
    lock_socket = "/nonexistent"
    options = "--ignore", IGNORED_NETWORK

    def wrap(self, command):
        return command

    def attack(self, name, forbidden):
        command = [stage.lend(ARGS.shunt), "run", "--net", "none", "--lock-socket", self.lock_socket, *self.options, "--",
                   stage.lend(ARGS.attacks), *self.command(name, forbidden)]
        return subprocess.run(self.wrap(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/",
                              check=False, timeout=PATIENCE + PER_TRY * ARGS.tries, env=environment_of_user(self.folder))


class RunAsUser(RunAsRoot):
    def setUp(self):
        super().setUp()
        server = stage.LockServer(self.folder)
        self.addCleanup(server.stop)
        self.lock_socket = server.socket

    def wrap(self, command):
        return as_user(command)


class RunWithDeviceLock(RunAsRoot):
    """Ignored networks are not accelerated at all with this lock, so there is no second forbidden listener."""
    forbidden = (LOOPBACK,)
    options = ()

    def wrap(self, command):
        return as_user(command)


class ServiceAsRoot(RunAsRoot):
    address = "10.96.0.10"

    def setUp(self):
        super().setUp()
        path = os.path.join(self.folder, "services.yaml")
        with open(path, "w", encoding="ascii") as file:
            json.dump({"services": [{"name": "allowed", "address": f"{self.address}:{self.peers.port}", "policy": "random",
                                     "connect": {"attempts": 4},
                                     "backends": [f"{ALLOWED}:{self.peers.port}", f"{ALLOWED}:9", f"{ALLOWED}:11"]}]}, file)
        os.chmod(path, 0o644)
        self.options = *self.options, "--services", path

    def command(self, name, forbidden):
        return ["attack", name, str(ARGS.tries), self.peers.port, self.address, forbidden, ALLOWED]


class ServiceAsUser(ServiceAsRoot):
    """With the device lock."""
    forbidden = (LOOPBACK,)
    options = ()

    def wrap(self, command):
        return as_user(command)


class AgentAsRoot(Races):
    namespaces = "pid", "network", "ipc", "uts", "mount"

    def wrap(self, command):
        return command

    def setUp(self):
        super().setUp()
        if shutil.which("runc") is None:
            self.skipTest("runc is not installed")
        server = stage.LockServer(self.folder)
        self.addCleanup(server.stop)
        self.socket = os.path.join(self.folder, "agent.sock")
        self.root = os.path.join(self.folder, "rootfs")
        for name in "bin", "proc", "sys", "dev", "tmp", "etc":
            os.makedirs(os.path.join(self.root, name))
        shutil.copy(ARGS.attacks, os.path.join(self.root, "bin/race_attacks"))
        config = os.path.join(self.folder, "agent.yaml")
        with open(config, "w", encoding="ascii") as file:
            json.dump({"ignore": [IGNORED_NETWORK]}, file)  # JSON is YAML
        subprocess.run(["chmod", "-R", "a+rwX", self.folder], check=True)
        self.environment = environment_of_user(self.folder)
        self.log = tempfile.TemporaryFile("w+")
        self.addCleanup(self.log.close)
        ready, ours = os.pipe()
        self.agent = subprocess.Popen(
            self.wrap([stage.lend(ARGS.shunt), "agent", "--socket", self.socket, "--config", config, "--lock-socket",
                       server.socket, "--ready-fd", str(ours)]), pass_fds=[ours], stderr=self.log, env=self.environment)
        self.addCleanup(self.agent.wait)
        self.addCleanup(self.agent.terminate)
        os.close(ours)
        with open(ready, "rb") as pipe:
            self.assertEqual(pipe.read(), b"\x01", self.said())
        self.profile = json.loads(subprocess.run([ARGS.shunt, "profile", "--listener", self.socket], check=True,
                                                 stdout=subprocess.PIPE).stdout)
        self.start_bystander()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def container(self, *arguments):
        """The command that runs race_attacks in a container, and where."""
        name = "race-" + os.urandom(4).hex()
        bundle = os.path.join(self.folder, name)
        os.mkdir(bundle)
        os.chmod(bundle, 0o777)
        rootless = ["--rootless"] if self.wrap([]) else []
        subprocess.run(self.wrap(["runc", "spec", *rootless]), cwd=bundle, check=True, env=self.environment)
        path = os.path.join(bundle, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config["process"]["terminal"] = False
        config["process"]["args"] = ["/bin/race_attacks", *arguments]
        config["process"]["rlimits"] = []
        config["root"] = {"path": self.root, "readonly": True}
        config["linux"]["seccomp"] = self.profile
        config["linux"]["namespaces"] = [{"type": kind} for kind in self.namespaces]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        state = os.path.join(self.folder, "state")
        delete = self.wrap(["runc", "--root", state, "delete", "--force", name])
        self.addCleanup(subprocess.run, delete, stderr=subprocess.DEVNULL, check=False, env=self.environment)
        return self.wrap(["runc", "--root", state, "run", name]), bundle

    def start_bystander(self):
        command, bundle = self.container("bystander", self.peers.port, ALLOWED)
        self.bystander = subprocess.Popen(command, cwd=bundle, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                          stderr=subprocess.STDOUT, text=True, env=self.environment)
        self.addCleanup(self.bystander.stdout.close)
        self.addCleanup(self.bystander.wait)
        self.addCleanup(self.bystander.kill)
        self.assertEqual(self.bystander.stdout.readline(), "ready\n", "the bystander does not start")

    def attack(self, name, forbidden):
        command, bundle = self.container(*self.command(name, forbidden))
        return subprocess.run(command, cwd=bundle, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=PATIENCE + PER_TRY * ARGS.tries, env=self.environment)

    def look_at_bystander(self):
        output, _ = self.bystander.communicate("", timeout=PATIENCE)
        told = json.loads(output)
        print(f"{type(self).__name__} bystander: {output.strip()}", flush=True)
        self.assertEqual(told["failures"], 0, output)
        self.assertGreater(told["calls"], 0)


class AgentAsUser(AgentAsRoot):
    namespaces = *AgentAsRoot.namespaces, "user"

    def wrap(self, command):
        return as_user(command)


del Races  # not a test by itself


def main():
    global ARGS  # pylint: disable=global-statement
    parser = argparse.ArgumentParser()
    parser.add_argument("--shunt", required=True, type=os.path.realpath)
    parser.add_argument("--attacks", required=True, type=os.path.realpath)
    parser.add_argument("--tries", type=int, default=int(os.environ.get("SHUNT_HOSTILE_TRIES", "2000")))
    ARGS, rest = parser.parse_known_args()
    stage.SHUNT = ARGS.shunt
    if "ARENA_FAR" not in os.environ:
        os.execv(stage.ARENA, [stage.ARENA, "--", sys.executable, *sys.argv])
    subprocess.run(["ip", "addr", "add", IGNORED + "/32", "dev", "lo"], check=True)
    result = unittest.main(argv=[sys.argv[0], "-v", *rest], exit=False).result
    if not result.wasSuccessful():
        return 1
    return SKIP if result.testsRun == len(result.skipped) else 0


if __name__ == "__main__":
    sys.exit(main())
