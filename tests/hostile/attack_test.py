#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Attacks by programs in containers, counted at the victims' end.

    attack_test.py --shunt PROGRAM --attacker PROGRAM --place PLACE

The victims: listeners on the host's loopback and on an ignored network; a listener of the engine's own user that lets
others share its port; a process of that user; a bystander in a container of its own, which connects all the time and
serves on a published port. Nothing may arrive, nothing may be lost. In the place "native", where nothing confines the
same program, every attack has to get through, or it would not show anything.
"""
import argparse
import contextlib
import errno
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

import attack_places

ARENA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support", "arena")
SKIP = 77
HOST, HOST6 = "203.0.113.1", "fd00:113::1"
IGNORED, IGNORED6 = "10.99.1.2", "fd01:99::2"
SHARED_PORT, SQUAT_PORT, BYSTANDER_PORT, OWN_PORT = 18300, 18301, 18302, 18303
CALLS = 24  # to a listener of which somebody may have stolen a share: all go right by chance once in 2^24


def listener(address, port=0, share=False):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT if share else socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(512)
    sock.setblocking(False)
    return sock


def address_of(sock):
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Allowed:
    """Says back what it hears, and remembers the ports that its clients come from."""

    def __init__(self):
        self.v4, self.v6 = listener(HOST), listener(HOST6)
        self.low_ports = 0
        self.selector = selectors.DefaultSelector()
        for sock in self.v4, self.v6:
            self.selector.register(sock, selectors.EVENT_READ, "listener")
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            for key, _ in self.selector.select():
                with contextlib.suppress(OSError):
                    if key.data == "listener":
                        client, source = key.fileobj.accept()
                        self.low_ports += source[1] < 1024
                        self.selector.register(client, selectors.EVENT_READ, "client")
                        continue
                    data = b""
                    with contextlib.suppress(OSError):
                        data = key.fileobj.recv(4096)
                    if data:
                        key.fileobj.send(data)
                    else:
                        self.selector.unregister(key.fileobj)
                        key.fileobj.close()


class Victims:
    def __init__(self, place):
        self.allowed = Allowed()
        self.secrets = [listener(address) for address in ("127.0.0.1", "::1", IGNORED, IGNORED6)]
        # The kernel lets sockets of one user share a port: the engine's user is the one to be stolen from.
        os.seteuid(place.engine_uid)
        self.shared = listener("0.0.0.0", SHARED_PORT, share=True)
        os.seteuid(0)
        threading.Thread(target=self.serve_shared, daemon=True).start()
        sleeper = ["sleep", "1000"]
        self.process = subprocess.Popen(attack_places.as_user(sleeper) if place.engine_uid else sleeper)

    def serve_shared(self):
        self.shared.setblocking(True)
        while True:
            client, _ = self.shared.accept()
            with contextlib.suppress(OSError):
                client.sendall(b"served\n")
            client.close()

    def arrived(self):
        """Connections that came to the secret listeners since the last call."""
        count = 0
        for sock in self.secrets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    client, _ = sock.accept()
                    client.close()
                    count += 1
        return count

    def stop(self):
        self.process.kill()
        self.process.wait()


def loses_a_call(port, patience):
    """True if one of many calls to the host's port is not answered."""
    try:
        for _ in range(CALLS):
            with socket.create_connection((HOST, port), patience) as client:
                if client.recv(100) != b"served\n":
                    return True
    except OSError:
        return True
    return False


def reached(port):
    """True if somebody takes connections on the host's port."""
    for host in (HOST, "127.0.0.1", IGNORED):
        with contextlib.suppress(OSError), socket.create_connection((host, port), 0.1):
            return True
    return False


def listeners():
    """{inode: port} of all who listen in the host's network."""
    found = {}
    for name in "tcp", "tcp6":
        with open("/proc/net/" + name, encoding="ascii") as table:
            for line in list(table)[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    found[fields[9]] = int(fields[1].rsplit(":", 1)[1], 16)
    return found


def taken(port):
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
            return False
        except OSError as error:
            return error.errno == errno.EADDRINUSE


# What an attack could win. Each says how often it did, from the notes and from what it sees itself.
class Judge:
    def __init__(self, place, victims):
        self.place = place
        self.victims = victims
        self.listening = listeners()  # before the attack
        self.patience = 0.2 if place.native else 3  # natively every call is lost sooner or later

    def connection(self, notes):
        del notes
        return self.victims.arrived()

    def clients(self, notes):
        """Clients of the host's come to a socket of the container's, or do not come where they want to."""
        del notes
        now = listeners()
        return sum(reached(now[inode]) for inode in now.keys() - self.listening.keys())

    def share(self, notes):
        del notes
        return int(loses_a_call(SHARED_PORT, self.patience))

    def bystanders_share(self, notes):
        del notes
        return int(loses_a_call(BYSTANDER_PORT, self.patience))

    def port(self, notes):
        del notes
        return int(taken(SQUAT_PORT))

    def low_port(self, notes):
        del notes
        count, self.victims.allowed.low_ports = self.victims.allowed.low_ports, 0
        return count

    def bound(self, notes):
        return int(" bind=ok" in notes)

    def killed(self, notes):
        del notes
        return int(self.victims.process.poll() is not None)

    def option(self, notes):
        on_the_host = self.place.native or "network=other" in notes
        won = re.search(r"mark:77|priority:9|rcvbuf:1342\d{5}|transparent:1|congestion:cubic$", notes)
        return int(on_the_host and won is not None)


# Ways to connect a loose socket of the host's.
AIMS = ["connect", "connect-blind", "sendto", "sendmsg", "sendmmsg", "int80-connect", "int80-sendto",
        "socketcall-connect", "socketcall-sendto", "x32-connect", "ring-connect", "ring-sendmsg", "open-by-sending"]
# Ways to get one.
LOOSE = ["twin unspec", "refused", "connecting-shutdown"]
LOOSE_PUBLISHED = ["accepted unspec", "published-shutdown"]
# Options that would open a way.
OPTIONS = ["detach", "device-lo", "transparent", "freebind", "mark", "repair unrepair", "tls", "source-route"]
OPTIONS6 = ["routing-header"]
ELSEWHERE = ["child", "netns", "files-netns", "undumpable", "nobody", "vfork", "apart", "exec:{unreadable}"]
PASSED = ["pass:{beside}", "pass:{other}"]
BINDS = ["bind", "bind-unspec", "bind-blind", "int80-bind", "socketcall-bind"]
LISTENS = ["listen", "int80-listen", "socketcall-listen"]


# What natively is no attack, or not on every machine: kernels have no x32 and no TLS, some no calls of 32-bit programs, a
# source route takes a router that goes along, and who is root natively need not be it of a namespace of his own.
NOT_HERE = re.compile(r"(x32|int80|socketcall)-\w+=ENOSYS|source-route|nobody userns")


def attacks(secrets):
    """(script, target, prize): what is tried, and what it would win."""
    loopback, loopback6, ignored, ignored6 = secrets
    for target in loopback, ignored:
        yield from ((f"twin unspec {aim}", target, "connection") for aim in AIMS)
        yield from ((f"{loose} connect", target, "connection") for loose in LOOSE + LOOSE_PUBLISHED)
        yield from ((f"twin unspec {where} connect", target, "connection") for where in PASSED + ["pass:{outside}"])
    yield from ((f"twin {option} unspec {option} connect", loopback, "connection") for option in OPTIONS)
    yield from ((f"twin unspec {where} connect", loopback, "connection") for where in ELSEWHERE)
    yield "twin network connect", loopback, "connection"
    for target in loopback6, ignored6:
        yield "twin unspec connect", target, "connection"
        yield from ((f"twin unspec {option} connect", target, "connection") for option in OPTIONS6)
    yield "twin unspec exec-while-connecting", loopback, "connection"
    yield "churn twin unspec connect", loopback, "connection"

    anywhere = "0.0.0.0:0"
    yield from ((f"{loose} listen", anywhere, "clients") for loose in LOOSE + ["accepted unspec"])
    yield from ((f"twin unspec {how}", anywhere, "clients") for how in LISTENS)
    yield from ((f"twin unspec {where} listen", anywhere, "clients") for where in ELSEWHERE + PASSED)

    squat, shared, bystander = (f"0.0.0.0:{port}" for port in (SQUAT_PORT, SHARED_PORT, BYSTANDER_PORT))
    yield from ((f"twin unspec {how}", squat, "port") for how in BINDS)
    yield from ((f"{loose} bind", squat, "port") for loose in LOOSE + ["accepted unspec"])
    yield from ((f"twin unspec {where} bind", squat, "port") for where in ELSEWHERE + PASSED)
    yield from ((f"twin unspec share {how} listen", shared, "share") for how in BINDS)
    yield from ((f"twin unspec share {where} bind listen", shared, "share") for where in ELSEWHERE + PASSED)
    yield f"socket share source:{SHARED_PORT} allowed unspec listen", shared, "share"
    yield from ((f"socket share source:{SHARED_PORT} allowed unspec {where} listen", shared, "share")
                for where in PASSED)
    for script in "twin unspec share bind listen", "twin unspec share {other} bind listen":
        yield script.replace("{other}", "pass:{other}"), bystander, "bystanders_share"

    yield "socket own:{pid} allowed signal", loopback, "killed"
    for option in "mark", "priority", "big-buffer", "transparent", "congestion:cubic":
        yield f"socket {option} allowed show", loopback, "option"
        yield f"twin {option} show", loopback, "option"
    yield "socket source:600 allowed", loopback, "low_port"
    yield "twin unspec nobody userns bind", "0.0.0.0:81", "bound"
    # Last, since the engine leaves the container alone from here on.
    yield "twin unspec share exchange bind listen", shared, "share"


class Arena:
    """The host's side of it all."""

    def __init__(self, arguments):
        for address in IGNORED + "/32", IGNORED6 + "/128":
            subprocess.run(["ip", "addr", "add", address, "dev", "lo"], check=True)
        lock_socket = os.path.join(os.environ["TMPDIR"], "lock.sock")
        self.lock_server = subprocess.Popen([arguments.shunt, "lock-server", "--socket", lock_socket],
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + attack_places.PATIENCE
        while not os.path.exists(lock_socket) and time.monotonic() < end:
            time.sleep(0.005)
        self.environment = {"SILENT": "203.0.113.99:80", "PUBLISHED_INSIDE": "0.0.0.0:18303",
                            "PUBLISHED_OUTSIDE": f"{HOST}:{OWN_PORT}"}
        self.place = attack_places.make_place(arguments.place, arguments.shunt, arguments.attacker, self.environment,
                                              lock_socket)
        self.failures = []
        self.counted = 0
        self.names = {}

    def run(self):
        place = self.place
        if place.missing():
            print(f"skipped: {place.missing()} is not installed")
            return SKIP
        victims = Victims(place)
        place.environment.update(ALLOWED4=address_of(victims.allowed.v4), ALLOWED6=address_of(victims.allowed.v6))
        try:
            place.begin()
            bystander = place.start(["bystander", str(BYSTANDER_PORT if place.publishes else 0)],
                                    publish=f"{BYSTANDER_PORT}:{BYSTANDER_PORT}")
            assert bystander.hear() == "ready"
            if place.publishes and loses_a_call(BYSTANDER_PORT, 3):
                self.failures.append("the bystander is not reached on its published port")
            attacker = place.start(["serve"], publish=f"{OWN_PORT}:{OWN_PORT}")
            assert attacker.hear() == "ready"
            self.start_receivers()
            self.names.update(unreadable=place.unreadable, pid=victims.process.pid)
            stop_numbers = self.reuse_numbers()
            for script, target, prize in attacks([address_of(sock) for sock in victims.secrets]):
                self.attack(attacker, script, target, Judge(place, victims), prize)
            stop_numbers()
            bystander.process.stdin.close()
            self.hear_bystander(bystander.hear())
            if place.lock is not None:
                self.check_locks(place.locks())
        finally:
            place.stop()
            victims.stop()
            self.lock_server.kill()
            self.lock_server.wait()
        return self.report()

    def start_receivers(self):
        """Who may get a socket by a message; by the names that scripts have for them."""
        place = self.place
        for name in "beside", "other", "outside":
            path = os.path.join(place.shared, name)
            if name == "outside":
                receiver = place.start_outside(["receive", path])
            elif name == "other":
                receiver = place.start(["receive", path])
            elif isinstance(place, attack_places.Agent):
                receiver = place.start(["receive", path], beside=place.containers[1])
            else:
                receiver = place.start(["receive", path]) if place.native else None
            end = time.monotonic() + attack_places.PATIENCE
            while receiver and not os.path.exists(path) and time.monotonic() < end and receiver.process.poll() is None:
                time.sleep(0.01)
            if os.path.exists(path):
                os.chmod(path, 0o777)
                self.names[name] = path
            else:
                print(f"  without a receiver {name}" + (f": {receiver_log(receiver)}" if receiver else ""))

    @staticmethod
    def reuse_numbers():
        """Sets the arena's process numbers back all the time, so that everybody gets one that somebody has just had."""
        stop = threading.Event()

        def loop():
            while not stop.wait(0.01):
                with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as last:
                    last.write("1000")
        thread = threading.Thread(target=loop)
        thread.start()

        def end():
            stop.set()
            thread.join()
        return end

    def attack(self, attacker, script, target, judge, prize, tries=3):
        place = self.place
        try:
            script = script.format(**self.names)
        except KeyError:
            return
        if not re.search(ONLY, f"{script} {prize}"):
            return
        if (not place.publishes) and ("accepted" in script or "published" in script or prize == "bystanders_share"):
            return
        attacker.say(f"{target} {script}")
        notes = attacker.hear()
        wins = getattr(judge, prize)(notes)
        attacker.say("next")
        assert attacker.hear() == "done"
        self.counted += 1
        what = f"{script} -> {target}: {prize}: {wins};{notes}"
        if VERBOSE:
            print(("  !! " if wins else "     ") + what)
        starts_loose = not place.native and not script.startswith(("socket", "churn"))
        if "HANGS" in notes or "UNKNOWN" in notes or (wins and not place.native):
            self.failures.append(what)
        elif starts_loose and place.accelerates != ("network=other" in notes):
            self.failures.append("should start from a socket of the host's just where there is one: " + what)
        elif place.native and not wins and not NOT_HERE.search(what):
            # Natively it may have bad luck: a port in use, a race that it lost.
            if tries > 1:
                self.counted -= 1
                return self.attack(attacker, script, target, judge, prize, tries - 1)
            self.failures.append("is no attack: " + what)

    def hear_bystander(self, line):
        print(f"  the bystander: {line}")
        calls, lost = (int(number) for number in re.findall(r"\d+", line)[:2])
        if calls < 20 or (lost and self.place.accelerates):
            self.failures.append(f"the bystander: {line}")

    def check_locks(self, text):
        wanted = "eBPF" if self.place.lock == "program" else "network device only"
        if wanted not in text:
            self.failures.append(f"the locks should be by {self.place.lock}: {text[-1000:]}")

    def report(self):
        print(f"{self.place.name}: {self.counted} attacks, {len(self.failures)} of them not as they should be")
        for failure in self.failures:
            print("  " + failure)
        return 1 if self.failures else 0


def receiver_log(receiver):
    with open(receiver.log, encoding="utf-8", errors="replace") as log:
        return log.read()[-300:]


def main():
    global VERBOSE, ONLY  # pylint: disable=global-statement
    parser = argparse.ArgumentParser()
    parser.add_argument("--shunt", required=True)
    parser.add_argument("--attacker", required=True)
    parser.add_argument("--place", required=True, choices=attack_places.PLACES)
    parser.add_argument("--verbose", action="store_true", help="say what each attack has come to")
    parser.add_argument("--only", default="", help="only the attacks that this regular expression finds")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    VERBOSE, ONLY = arguments.verbose, arguments.only
    if not arguments.inside:
        return subprocess.run([ARENA, "--", sys.executable, *sys.argv, "--inside"], check=False).returncode
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return Arena(arguments).run()


VERBOSE, ONLY = False, ""
if __name__ == "__main__":
    sys.exit(main())
