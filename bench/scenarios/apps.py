# SPDX-License-Identifier: Apache-2.0
"""Programs that people run, unmodified: the server on the host and its usual load generator in a rootless container, or the
server in a container and the load generator on the host, as in the paper on bypass4netns (arXiv 2402.00365). One scenario for
each program; bench/run measures all of them as "apps"."""

import csv
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from scenarios.scenario import Scenario
from scenarios.servers import PATIENCE, installed, read_wrk, serve, web_server
from scenarios.sides import BOTH, sides
from scenarios.stage import HOST, Failed

POSTGRESQL = "/usr/lib/postgresql"


class App(Scenario):
    """Connections that stay show what each byte costs on its way, those that do not what a connection costs."""

    arms = BOTH
    next_port = 21000

    def prepare(self):
        self.folder = tempfile.mkdtemp(prefix="app-")

    def port(self):
        """Each arm of each run has a server of its own, at a port that none before it has had: the connections of networks in
        user space stay in TIME_WAIT."""
        App.next_port += 1
        return str(App.next_port)

    def measure(self, arm):
        self.stage.stop_servers()
        port = self.port()
        try:
            return self.load(sides(self.stage, arm, port), port)
        finally:
            self.stage.stop_servers()

    def load(self, where, port):
        """Starts the server at this port, and has it asked; `where` are the Sides."""
        raise NotImplementedError

    def output(self, command, timeout=60):
        return self.stage.finish(self.stage.start(command), command, timeout)

    def whole_seconds(self):
        return max(1, round(self.seconds))


class Redis(App):
    title = "redis-benchmark: 50 connections that stay, and a new one for each request"
    metrics = {"SET": ("/s", "higher"), "GET": ("/s", "higher"), "GET p50": ("us", "lower"), "GET p99": ("us", "lower"),
               "GET, new connections": ("/s", "higher")}

    def load(self, where, port):
        installed("redis-benchmark", "redis-tools")
        server = ["redis-server", "--bind", where.address, "--port", port, "--save", "", "--protected-mode", "no", "--dir", self.folder]
        installed(server[0])
        serve(self.stage, server, port, self.folder, where=where)
        kept = self.rows(where.client, port, 1000 if self.tiny else 50000 * self.seconds, "set,get")
        new = self.rows(where.client, port, 500 if self.tiny else 2500 * self.seconds, "get", "-k", "0")
        return {"SET": kept["SET"]["rps"], "GET": kept["GET"]["rps"], "GET p50": kept["GET"]["p50_latency_ms"] * 1e3,
                "GET p99": kept["GET"]["p99_latency_ms"] * 1e3, "GET, new connections": new["GET"]["rps"]}

    def rows(self, prefix, port, requests, tests, *more):
        """{test: {column: value}} of what it prints as CSV."""
        command = [*prefix, "redis-benchmark", "-h", HOST, "-p", port, "-n", f"{requests:.0f}", "-t", tests, "--csv", *more]
        lines = [line for line in self.output(command, 120).splitlines() if line.startswith('"')]
        rows = {row["test"]: {name: float(value) for name, value in row.items() if name != "test"}
                for row in csv.DictReader(lines)}
        if set(rows) != {name.upper() for name in tests.split(",")}:
            raise Failed(f"redis-benchmark said nothing about {tests}", lines)
        return rows


class Memcached(App):
    """Debian has no memtier_benchmark; bench/memcached_client does by default what that does: ten gets to each set."""

    title = "memcached: 8 connections that stay, requests one by one, and sixteen at a time"
    metrics = {"requests": ("/s", "higher"), "p50": ("us", "lower"), "p99": ("us", "lower"), "16 at a time": ("/s", "higher")}

    def load(self, where, port):
        user = ["-u", "root"] if os.getuid() == 0 else []
        serve(self.stage, ["memcached", "-l", where.address, "-p", port, "-U", "0", "-t", "2", *user], port, self.folder, where=where)
        client = [*where.client, self.stage.program("memcached_client"), "--address", HOST, "--port", port, "--seconds",
                  str(self.seconds)]
        single = self.stage.json(client)
        return {"requests": single["per_second"], **self.latencies(single, ["p50", "p99"]),
                "16 at a time": self.stage.json([*client, "--pipeline", "16"])["per_second"]}


class Postmaster(subprocess.Popen):
    """PostgreSQL's first process. It has to end the others, and its shared memory, so it is asked to (a fast shutdown)."""

    def kill(self):
        self.send_signal(signal.SIGINT)
        try:
            self.wait(10)
        except subprocess.TimeoutExpired:
            super().kill()


class Pgbench(App):
    """The database does not sync, so that no disk is measured; its smallest scale fits into memory."""

    title = "pgbench on PostgreSQL: 8 clients, queries on connections that stay and on new ones, and its usual transactions"
    metrics = {"queries": ("/s", "higher"), "query": ("us", "lower"), "queries, new connections": ("/s", "higher"),
               "transactions": ("/s", "higher")}

    def prepare(self):
        super().prepare()
        self.data = None

    def load(self, where, port):
        installed("pgbench", "postgresql")
        versions = sorted(os.listdir(POSTGRESQL) if os.path.isdir(POSTGRESQL) else [], key=float)
        program = f"{POSTGRESQL}/{versions[-1] if versions else 'VERSION'}/bin/postgres"
        installed(program, "postgresql")
        if self.data is None:
            self.data = self.make_database(os.path.dirname(program))
        server = [program, "-D", self.data, "-p", port, "-k", self.folder, "-c", f"listen_addresses={where.address}"]
        serve(self.stage, server, port, self.folder, Postmaster, where)
        self.until_ready(port)
        connect = ["pgbench", "-h", HOST, "-p", port, "-U", "bench"]
        if not os.path.exists(filled := os.path.join(self.folder, "filled")):
            self.output([*connect, "--initialize", "--quiet", "postgres"], 120)
            with open(filled, "w", encoding="ascii"):
                pass
        load = [*where.client, *connect, "--no-vacuum", "--client", "8", "--jobs", "2", "--time", str(self.whole_seconds())]
        kept, latency = self.rate([*load, "--select-only", "postgres"])
        new, _ = self.rate([*load, "--select-only", "--connect", "postgres"])
        transactions, _ = self.rate([*load, "postgres"])
        return {"queries": kept, "query": latency, "queries, new connections": new, "transactions": transactions}

    @staticmethod
    def until_ready(port):
        """It listens while it starts, and refuses everybody."""
        command = ["pg_isready", "--quiet", "--host", HOST, "--port", port]
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(command, check=False).returncode != 0:
            if time.monotonic() > deadline:
                raise Failed("PostgreSQL listens, but lets nobody in")
            time.sleep(0.02)

    def make_database(self, programs):
        data = os.path.join(self.folder, "data")
        shutil.rmtree(data, ignore_errors=True)
        self.output([f"{programs}/initdb", "--pgdata", data, "--username", "bench", "--auth", "trust", "--no-sync",
                     "--no-locale", "--encoding", "UTF8"], 120)
        with open(os.path.join(data, "postgresql.conf"), "a", encoding="ascii") as file:
            file.write("fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n")
        with open(os.path.join(data, "pg_hba.conf"), "w", encoding="ascii") as file:
            file.write("host all all all trust\n")  # on the stage, which nobody else reaches
        return data

    def rate(self, command):
        """(transactions per second, microseconds for each as the clients saw it)."""
        output = self.output(command)
        rate = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
        latency = re.search(r"^latency average = ([\d.]+) ms", output, re.MULTILINE)
        failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
        if not rate or not latency or (failed and int(failed[1])):
            raise Failed("pgbench did not do all that it should", output.splitlines())
        return float(rate[1]), float(latency[1]) * 1e3


class Wrk(App):
    title = "wrk on nginx: 32 connections that stay, and a new one for each request"
    metrics = {"requests": ("/s", "higher"), "p50": ("us", "lower"), "p99": ("us", "lower"),
               "requests, new connections": ("/s", "higher")}

    def load(self, where, port):
        installed("wrk")
        installed("nginx", "nginx-core")
        serve(self.stage, web_server(self.folder, [port], where.address), port, self.folder, where=where)
        load = [*where.client, "wrk", "--threads", "2", "--connections", "32", "--duration", f"{self.whole_seconds()}s",
                "--latency"]
        _, kept, latencies = read_wrk(self.output([*load, f"http://{HOST}:{port}/"]))
        _, new, _ = read_wrk(self.output([*load, "--header", "Connection: close", f"http://{HOST}:{port}/"]))
        return {"requests": kept, **self.latencies(latencies, ["p50", "p99"]), "requests, new connections": new}
