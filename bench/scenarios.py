# SPDX-License-Identifier: Apache-2.0
"""What bench/run measures: one class per scenario. Runs inside bench/stage, as an ordinary user.

An arm is a way to run a command (natively, under shunt, over slirp4netns, over pasta). A scenario measures one arm once
per call and returns {metric: value}; the interleaving and the bookkeeping are here, the arithmetic is in report.py.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HOST = "203.0.113.1"
FAILURES_TO_GIVE_UP = 2


class Unavailable(Exception):
    """An arm cannot be tried on this machine."""


class Failed(Exception):
    """An arm was tried and did not give a value."""


class Stage:
    """Commands, servers and where the programs are."""

    def __init__(self, arguments):
        self.directory = arguments.inside
        self.arguments = arguments
        self.servers = []

    def program(self, name):
        return os.path.join(self.directory, name)

    def arm_prefix(self, arm):
        if arm == "native":
            return []
        if arm.startswith("shunt"):
            if not os.path.exists(self.program("shunt")):
                raise Unavailable("shunt is not built")
            affinity = ["--affinity", arm.partition("-")[2]] if "-" in arm else []
            options = affinity + shlex.split(self.arguments.shunt_options)
            return [self.program("shunt"), "run", "--net", self.arguments.net, *options, "--"]
        if shutil.which(arm) is None:
            raise Unavailable(f"{arm} is not installed")
        return [self.program("bench/container"), arm]

    def start(self, command):
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)

    def finish(self, process, command, timeout):
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            raise Failed(f"no end after {timeout:.0f} s: {os.path.basename(command[0])}") from None
        if process.returncode == 77:
            raise Unavailable(errors.strip().splitlines()[-1] if errors.strip() else "not available here")
        if process.returncode != 0:
            why = (errors.strip() or output.strip() or "no message").splitlines()[-1]
            raise Failed(f"exit status {process.returncode}: {why[:200]}")
        return output

    def json(self, command, timeout=60):
        """Runs a command that prints a JSON object."""
        output = self.finish(self.start(command), command, timeout)
        try:
            return json.loads(output)
        except ValueError:
            raise Failed(f"no JSON from {os.path.basename(command[0])}: {output[:200]!r}") from None

    def echo_server(self, kind, cpu=None):
        """Starts a server, on `cpu` if that is given; returns its port.

        Each arm of each run gets one of its own (stop_servers() before): the connections of slirp4netns and pasta stay
        in TIME_WAIT, and to the same port of the server every later arm would have to search for a free one of its own.
        """
        pinned = [] if cpu is None else ["taskset", "--cpu-list", str(cpu)]
        command = pinned + [self.program("echo_server"), HOST, "0", kind]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        words = server.stdout.readline().split()
        if len(words) != 2 or words[0] != "ready":
            sys.exit("bench: echo_server did not start")
        return words[1]

    def stop_servers(self):
        for server in self.servers:
            server.kill()
            server.wait()
        self.servers.clear()

    def client(self, mode, port, *options):
        return [self.program("connect_client"), "--mode", mode, "--address", HOST, "--port", port, *options]


def sound(measured):
    """The client's result, or Failed when too many connections went wrong to call it a measurement."""
    errors = sum(measured["errors"].values())
    if errors > measured["samples"] / 100:
        raise Failed(f"{errors} of {errors + measured['samples']} connections failed: {measured['errors']}")
    return measured


class Scenario:
    title = ""
    arms = ["native", "shunt", "slirp4netns", "pasta"]
    metrics = {}  # name -> (unit, better)

    def __init__(self, stage):
        self.stage = stage
        self.tiny = stage.arguments.tiny
        self.seconds = stage.arguments.seconds

    as_root = False  # inside the stage

    def base(self, arm):
        return None if arm == "native" else "native"

    def prepare(self):
        pass

    def measure(self, arm):
        raise NotImplementedError


class Connect(Scenario):
    """The server has the first CPU to itself in the arms "apart". A server that gets to run on the caller's CPU accepts a
    dozen connections at a time there, and the connect that waits for it is what p99 shows: a matter of who runs where."""

    title = "a connection to a host address, one after the other, one thread"
    arms = ["native", "shunt", "slirp4netns", "pasta", "native-apart", "shunt-apart"]
    metrics = {"connect p50": ("us", "lower"), "connect p99": ("us", "lower"), "connect p99.9": ("us", "lower"),
               "connect+close p50": ("us", "lower"), "connect+echo+close p50": ("us", "lower"),
               "connect+echo+close p99": ("us", "lower")}

    def prepare(self):
        self.cpus = sorted(os.sched_getaffinity(0))

    def base(self, arm):
        return {"native": None, "shunt-apart": "native-apart", "native-apart": None}.get(arm, "native")

    def measure(self, arm):
        self.stage.stop_servers()
        self.quiet = self.stage.echo_server("quiet", self.cpus[0])
        self.echo = self.stage.echo_server("1", self.cpus[0])
        count = "200" if self.tiny else "10000"
        prefix = self.stage.arm_prefix(arm.removesuffix("-apart"))
        if arm.endswith("-apart"):
            if len(self.cpus) < 2:
                raise Unavailable("this needs two CPUs")
            prefix = ["taskset", "--cpu-list", ",".join(map(str, self.cpus[1:]))] + prefix
        results = {}
        for mode, port in [("connect", self.quiet), ("connect-close", self.quiet), ("echo", self.echo)]:
            results[mode] = sound(self.stage.json(prefix + self.stage.client(mode, port, "--count", count)))
        values = {"connect p50": results["connect"]["p50_ns"], "connect p99": results["connect"]["p99_ns"],
                  "connect p99.9": results["connect"]["p99_9_ns"],
                  "connect+close p50": results["connect-close"]["p50_ns"],
                  "connect+echo+close p50": results["echo"]["p50_ns"],
                  "connect+echo+close p99": results["echo"]["p99_ns"]}
        return {name: None if value is None else value / 1000 for name, value in values.items()}


class ClosedLoop(Scenario):
    title = "connect, one byte there and back, close: closed loop"
    metrics = {"8 threads": ("/s", "higher"), "8 threads p99": ("us", "lower"), "4 containers": ("/s", "higher")}

    def measure(self, arm):
        self.stage.stop_servers()
        port = self.stage.echo_server("2")
        prefix = self.stage.arm_prefix(arm)
        client = self.stage.client("echo", port, "--seconds", str(self.seconds))
        threads = sound(self.stage.json(prefix + client + ["--threads", "8"]))
        p99 = threads["p99_ns"]
        return {"8 threads": threads["per_second"], "8 threads p99": None if p99 is None else p99 / 1000,
                "4 containers": self.containers(prefix, client)}

    def containers(self, prefix, client):
        """Four containers with two threads each, begun at the same moment."""
        command = prefix + client + ["--threads", "2", "--start-at", str(time.time() + (1 if self.tiny else 3))]
        started = [self.stage.start(command) for _ in range(4)]
        outputs, failure = [], None
        for process in started:
            try:
                outputs.append(self.stage.finish(process, command, 60))
            except (Failed, Unavailable) as error:
                failure = error
        if failure:
            raise failure
        results = [sound(json.loads(output)) for output in outputs]
        if not self.tiny and max(result["late"] for result in results) > 0.2:
            raise Failed("the containers took too long to start to begin together")
        return sum(result["per_second"] for result in results)


class Iperf:
    """iperf3, unmodified; its server is on the host."""

    def __init__(self, stage):
        self.stage = stage
        self.port = 5201
        if shutil.which("iperf3") is None:
            sys.exit("bench: iperf3 is not installed: apt-get install iperf3")

    def listening(self):
        wanted = f":{self.port:04X}"
        for path in ["/proc/net/tcp", "/proc/net/tcp6"]:
            with open(path, encoding="ascii") as file:
                for line in list(file)[1:]:
                    fields = line.split()
                    if fields[1].endswith(wanted) and fields[3] == "0A":
                        return True
        return False

    def gigabits(self, prefix, seconds, streams, down):
        """Received Gbit/s of one test. Each test has a server of its own: a broken client can wedge one."""
        self.port += 1
        server = self.stage.start(["iperf3", "--server", "--one-off", "--bind", HOST, "--port", str(self.port)])
        try:
            deadline = time.monotonic() + 10
            while not self.listening():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise Failed("the iperf3 server did not start")
                time.sleep(0.01)
            command = prefix + ["iperf3", "--client", HOST, "--port", str(self.port), "--time", f"{seconds:g}", "--json",
                                "--parallel", str(streams), "--omit", "0"] + (["--reverse"] if down else [])
            result = self.stage.json(command, seconds + 20)
            return result["end"]["sum_received"]["bits_per_second"] / 1e9
        except KeyError:
            raise Failed("iperf3 gave no result: " + str(result.get("error", ""))) from None
        finally:
            server.kill()
            server.communicate()


class Throughput(Scenario):
    title = "iperf3 to and from a host address"
    metrics = {"1 stream up": ("Gbit/s", "higher"), "1 stream down": ("Gbit/s", "higher"),
               "4 streams up": ("Gbit/s", "higher"), "4 streams down": ("Gbit/s", "higher")}

    def prepare(self):
        self.iperf = Iperf(self.stage)

    def measure(self, arm):
        prefix = self.stage.arm_prefix(arm)
        seconds = max(1, round(self.seconds))
        return {f"{streams} stream{'s' if streams > 1 else ''} {'down' if down else 'up'}":
                self.iperf.gigabits(prefix, seconds, streams, down) for streams in (1, 4) for down in (False, True)}


class Quick(Scenario):
    title = "the same programs in a rootless container"
    metrics = {"iperf3 up": ("Gbit/s", "higher"), "iperf3 down": ("Gbit/s", "higher"), "connect p50": ("us", "lower"),
               "connect+echo": ("/s", "higher")}

    def prepare(self):
        self.iperf = Iperf(self.stage)

    def measure(self, arm):
        self.stage.stop_servers()
        quiet, echo = self.stage.echo_server("quiet"), self.stage.echo_server("2")
        prefix = self.stage.arm_prefix(arm)
        seconds = max(1, round(self.seconds))
        latency = sound(self.stage.json(prefix + self.stage.client("connect", quiet, "--count", "2000")))
        loop = self.stage.client("echo", echo, "--threads", "8", "--seconds", str(self.seconds / 2))
        return {"iperf3 up": self.iperf.gigabits(prefix, seconds, 1, False),
                "iperf3 down": self.iperf.gigabits(prefix, seconds, 1, True),
                "connect p50": latency["p50_ns"] / 1000,
                "connect+echo": sound(self.stage.json(prefix + loop))["per_second"]}


class Floor(Scenario):
    title = "a trapped call that is answered at once (connect() on no descriptor)"
    arms = ["native", "bare-float", "bare-pin", "bare-poll-pin", "shunt-float", "shunt-pin"]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower")}

    def base(self, arm):
        return {"shunt-float": "bare-float", "shunt-pin": "bare-pin", "bare-poll-pin": "bare-pin"}.get(arm)

    def measure(self, arm):
        command = [self.stage.program("floor"), "--call", "connect", "--count", "1000" if self.tiny else "20000"]
        if arm.startswith("bare"):
            affinity = "pin-supervisor" if arm.endswith("-pin") else "free"
            wait = ["--poll"] if arm == "bare-poll-pin" else []
            measured = self.stage.json(command + ["--sync", "--affinity", affinity] + wait)
        else:
            measured = self.stage.json(self.stage.arm_prefix(arm) + command + ["--target-only"])
        return {"p50": measured["p50_ns"] / 1000, "p99": None if measured["p99_ns"] is None else measured["p99_ns"] / 1000}


class Untrapped(Scenario):
    title = "calls that are nobody's business"
    arms = ["native", "any-filter", "shunt"]
    calls = ["close", "fcntl", "setsockopt", "read", "write", "getpid"]
    metrics = {call: ("ns", "lower") for call in calls}

    def base(self, arm):
        # Any seccomp filter at all makes every call dearer, whatever it says.
        return {"native": None, "any-filter": "native", "shunt": "any-filter"}[arm]

    def measure(self, arm):
        batches = "20" if self.tiny else "1000"
        command = [self.stage.program("untrapped"), "--batches", batches]
        if arm == "any-filter":
            measured = self.stage.json(command + ["--allow-all-filter"])
        else:
            measured = self.stage.json(self.stage.arm_prefix(arm) + command)
        return {call: measured[call]["p50_ns"] for call in self.calls}


class Memory(Scenario):
    title = "one agent that serves the listeners of 1000 containers and has nothing to do"
    arms = ["shunt"]
    metrics = {"RSS": ("MiB", "lower"), "RSS added": ("MiB", "lower"), "idle CPU": ("ms/s", "lower"),
               "descriptors left": ("", "lower")}

    def base(self, arm):
        return None

    def measure(self, arm):
        self.stage.arm_prefix("shunt")
        containers = 10 if self.tiny else 1000
        socket = os.path.join(tempfile.mkdtemp(), "agent.sock")
        ready, ours = os.pipe()
        command = [self.stage.program("shunt"), "agent", "--socket", socket, "--ready-fd", str(ours)]
        # Its log goes to a file: it says a line for each container, and a pipe that nobody reads would fill up.
        log = tempfile.TemporaryFile("w+")
        agent = subprocess.Popen(command, pass_fds=[ours], stderr=log)
        os.close(ours)
        try:
            if not os.read(ready, 1):
                agent.wait(timeout=10)
                log.seek(0)
                raise Failed("the agent did not start: " + (log.read().strip().splitlines() or ["no message"])[-1])
            return self.watch(agent.pid, socket, containers)
        finally:
            os.close(ready)
            agent.terminate()
            try:
                agent.wait(timeout=5)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait()
            log.close()

    def watch(self, pid, socket, containers):
        before, descriptors = resident_mib(pid), len(os.listdir(f"/proc/{pid}/fd"))
        command = [self.stage.program("listeners"), socket, str(containers)]
        listeners = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if listeners.stdout.readline() != "ready\n":
                raise Failed("bench/listeners could not hand over its listeners")
            during = resident_mib(pid)
            begin, used = time.monotonic(), cpu_seconds(pid)
            time.sleep(max(1, self.seconds))
            idle = (cpu_seconds(pid) - used) / (time.monotonic() - begin)
        finally:
            listeners.communicate("", timeout=60)
        deadline = time.monotonic() + 5
        while len(os.listdir(f"/proc/{pid}/fd")) > descriptors and time.monotonic() < deadline:
            time.sleep(0.05)
        left = len(os.listdir(f"/proc/{pid}/fd")) - descriptors
        return {"RSS": during, "RSS added": during - before, "idle CPU": idle * 1000, "descriptors left": left}


class Fairness(Scenario):
    """`hogs`, `mappers` and `none` make no trapped call: the first two say what a busy machine costs without any engine's doing.

    -yielding: the flood's threads leave the CPUs to whoever wants them, so that the ratio is of the engine's work for
    them (which includes waits for such threads) and not of their own. -watched: an epoll watches the calm container's
    sockets, and one reactor serves both.
    """
    title = "a calm container's connect beside another container on the same engine, which floods it"
    arms = ["none", "connects", "waits", "epolls", "tables", "hogs", "starved", "mappers", "mappings",
            "hogs-yielding", "connects-yielding", "epolls-yielding", "tables-yielding",
            "none-watched", "hogs-watched", "connects-watched", "epolls-watched", "tables-watched"]
    metrics = {"calm p50": ("us", "lower"), "calm p99": ("us", "lower"), "flood": ("calls/s", "higher")}

    def base(self, arm):
        flood, _, manner = arm.partition("-")
        if manner == "watched":
            return None if flood == "none" else "none-watched"
        return {"none": None, "starved": "hogs", "mappings": "mappers"}.get(flood, "none")

    def prepare(self):
        self.port = self.stage.echo_server("quiet")

    def measure(self, arm):
        flood, _, manner = arm.partition("-")
        command = [self.stage.program("fairness"), "--address", HOST, "--port", self.port, "--flood", flood,
                   "--count", "100" if self.tiny else "1000" if flood == "tables" else "3000"]
        command += {"yielding": ["--flood-nice", "19"], "watched": ["--calm-epoll", "--reactors", "1"]}.get(manner, [])
        measured = self.stage.json(command, 120)
        if measured["errors"]:
            raise Failed(f"{measured['errors']} of the calm container's connects failed")
        p99 = measured["p99_ns"]
        return {"calm p50": measured["p50_ns"] / 1000, "calm p99": None if p99 is None else p99 / 1000,
                "flood": measured["flood_per_second"] or None}


class Deeds(Scenario):
    """`bare` is the floor of a refused call: a loop that does nothing else. Threads of one container share its engine."""
    title = "mkdir on a tmpfs: refused, and made by a worker under another name"
    arms = ["native", "bare", "refused", "inside", "inside-4-threads"]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower"), "rate": ("calls/s", "higher")}

    def base(self, arm):
        return {"native": None, "bare": "native", "refused": "bare"}.get(arm, "native")

    def measure(self, arm):
        return self.deed("mkdir", arm.split("-")[0], 20000, ["--threads", "4"] if arm.endswith("threads") else [])

    def deed(self, deed, arm, count, more=()):
        command = [self.stage.program("deeds"), "--deed", deed, "--arm", arm, "--count", "500" if self.tiny else str(count)]
        measured = self.stage.json(command + list(more), 120)
        p99 = measured["p99_ns"]
        return {"p50": measured["p50_ns"] / 1000, "p99": None if p99 is None else p99 / 1000,
                "rate": measured["per_second"]}


class Mounts(Deeds):
    """Each with a millisecond to the next. A proc with masks locked into a user namespace; natively none are."""
    title = "made for a container on a tmpfs: a device (in its place, or as a mount), a mount of proc with eight masks"
    arms = ["native-mknod", "inside-mknod", "inside-device", "native-proc", "inside-proc"]
    metrics = {"p50": ("us", "lower"), "p99": ("us", "lower")}
    as_root = True  # who makes devices

    def base(self, arm):
        return {"inside-mknod": "native-mknod", "inside-device": "native-mknod", "inside-proc": "native-proc"}.get(arm)

    def measure(self, arm):
        manner, deed = arm.split("-")
        values = self.deed(deed, manner, 2000)
        return {name: values[name] for name in self.metrics}


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


SCENARIOS = {"connect": Connect, "closed-loop": ClosedLoop, "throughput": Throughput, "floor": Floor,
             "untrapped": Untrapped, "memory": Memory, "quick": Quick, "fairness": Fairness,
             "deeds": Deeds, "mounts": Mounts}


def progress(text):
    """One line that is rewritten on a terminal; nothing elsewhere but the line itself."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    elif text:
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


def measure_scenario(arguments, name, stage):
    scenario = SCENARIOS[name](stage)
    arms = [arm for arm in scenario.arms if not arguments.arms or arm in arguments.arms.split(",")]
    values = {arm: {metric: [] for metric in scenario.metrics} for arm in arms}
    notes, failures, failed = {}, dict.fromkeys(arms, 0), []
    scenario.prepare()
    for run in range(arguments.runs):
        for arm in arms:
            measured = {}
            if failures[arm] < FAILURES_TO_GIVE_UP:
                progress(f"{name}: run {run + 1} of {arguments.runs}: {arm}")
                try:
                    measured = scenario.measure(arm)
                except Unavailable as error:
                    notes[arm], failures[arm] = f"not tried: {error}", FAILURES_TO_GIVE_UP
                except Failed as error:
                    notes[arm] = f"failed: {error}"
                    failures[arm] += 1
                    failed.append(arm)
            for metric in scenario.metrics:
                values[arm][metric].append(measured.get(metric))
    progress("")
    stage.stop_servers()
    metrics = [{"name": metric, "unit": unit, "better": better,
                "arms": {arm: {"base": scenario.base(arm), "values": values[arm][metric]} for arm in arms}}
               for metric, (unit, better) in scenario.metrics.items()]
    return {"name": name, "title": scenario.title, "runs": arguments.runs, "metrics": metrics, "notes": notes,
            "failed": failed}


def measure(arguments):
    stage = Stage(arguments)
    return [measure_scenario(arguments, name, stage) for name in arguments.scenario]
