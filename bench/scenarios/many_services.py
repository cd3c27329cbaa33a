# SPDX-License-Identifier: Apache-2.0
"""Services by the ten thousand, and a source that never rests."""

import contextlib
import json
import os
import tempfile
import time

from scenarios import feeders
from scenarios.agent import Agent
from scenarios.scenario import Scenario
from scenarios.stage import HOST, Failed

SERVICE = "10.96.255.1"  # that is connected to; its endpoints are there and stay
CHANGES = 1000  # endpoints a second
UNHEARD = "unheard"
IN_FORCE_WITHIN = 10  # seconds; so long an agent waits at its start until its services are in force (handlers/services.cc)


class ManyServices(Scenario):
    """An agent with 10,000 services, 100,000 endpoints in all. `still`: nothing changes; the arms named after sources: 1,000
    endpoints of ten services are replaced each second, none of the service that is connected to, since what is asked is what
    tables that come and go cost everybody. `cluster` has all services from an API server. `unheard`: the files change, and nobody
    listens, so that what a busy source takes of the CPUs is not taken for the agent's doing.

    Start is until that service is in force, and those of the API server are known. Memory is that of all the agent's processes
    above an agent without services; CPU what they take while nobody connects. Behind: how long after the last change the agent
    knows all of them. Told is what the API server sends to each agent: an endpoint that changes is told with all of its slice."""

    title = "an agent with ten thousand services: connects to one of them, while a source changes others"
    arms = ["native", "shunt 1 service", "shunt still", "shunt unheard", *(f"shunt {name}" for name in feeders.FEEDERS)]
    metrics = {"connect p50": ("us", "lower"), "connect p99": ("us", "lower"), "start": ("s", "lower"),
               "memory per endpoint": ("bytes", "lower"), "CPU": ("ms/s", "lower"), "changes": ("/s", "higher"),
               "behind": ("s", "lower"), "told at the start": ("MB", "lower"), "told per change": ("bytes", "lower")}

    def base(self, arm):
        return {"native": None, "shunt 1 service": "native", "shunt still": "shunt 1 service",
                "shunt unheard": "shunt still"}.get(arm, "shunt unheard")

    def measure(self, arm):
        self.stage.stop_servers()
        ports = [self.stage.echo_server("quiet") for _ in range(3)]
        count = "200" if self.tiny else "10000"
        if arm == "native":
            return self.connects([], HOST, ports[0], count)
        with tempfile.TemporaryDirectory(prefix="services-") as folder:
            try:
                return self.with_services(arm.removeprefix("shunt "), folder, ports, count)
            finally:
                self.stage.stop_servers()

    def with_services(self, manner, folder, ports, count):
        with Agent(self.stage) as agent:
            alone = agent.memory()
        feeder = None
        if manner != "1 service":
            still = 100 if self.tiny else 10000 - feeders.SERVICES
            feeder = feeders.FEEDERS.get(manner, feeders.Files)(self.stage, folder, still)
            feeder.begin()
        configuration, endpoints = self.configure(folder, ports, feeder, manner != UNHEARD)
        with Agent(self.stage, "--config", configuration) as agent:
            if agent.start_took >= IN_FORCE_WITHIN:
                raise Failed(f"the services were not in force {IN_FORCE_WITHIN} s after the agent's start")
            values = {"start": agent.start_took}
            if feeder is not None and feeder.knows_all:
                values["start"] += self.until_listed(agent, feeder)
            if feeder is not None:
                values["memory per endpoint"] = (agent.memory() - alone) / endpoints
            changes = feeders.Changes(feeder, CHANGES) if manner in feeders.FEEDERS or manner == UNHEARD else None
            with changes or contextlib.nullcontext():
                values["CPU"] = self.cpu(agent) * 1000
                values |= self.connects(agent.container(), SERVICE, "80", count)
            values["changes"] = changes.per_second if changes else 0
            if changes and manner != UNHEARD:
                values["behind"] = self.until_heard(agent, feeder)
                if feeder.told():
                    listed, streamed = feeder.told()
                    values |= {"told at the start": listed / 1e6, "told per change": streamed / changes.made}
            return values

    @staticmethod
    def until_listed(agent, feeder):
        """Seconds until the agent has a service that a source knows which an agent does not wait for at its start."""
        begin = time.monotonic()
        while time.monotonic() < begin + IN_FORCE_WITHIN:
            try:
                agent.ctl("services", feeder.name(0), "--json")
                return time.monotonic() - begin
            except Failed:
                time.sleep(0.02)  # there is no such service yet
        raise Failed("the source's services were never heard of")

    @staticmethod
    def until_heard(agent, feeder):
        """Seconds until the agent knows what the source has said last: it must not have stopped listening."""
        begin = time.monotonic()
        wanted = {address for endpoints in feeder.endpoints for address in endpoints}
        while time.monotonic() < begin + IN_FORCE_WITHIN:
            known = {backend["address"] for service in range(feeders.SERVICES)
                     for one in json.loads(agent.ctl("services", feeder.name(service), "--json"))["services"]
                     for backend in one["backends"]}
            if known == wanted:
                return time.monotonic() - begin
        raise Failed(f"{len(wanted - known)} of the {len(wanted)} endpoints that the source had last were never heard of")

    def configure(self, folder, ports, feeder, heard):
        """(the path of a configuration, how many endpoints there are)."""
        listed = ", ".join(f"'{HOST}:{port}'" for port in ports)
        lines = ["services:", f"  - {{name: measured, address: '{SERVICE}:80', backends: [{listed}]}}"]
        endpoints = len(ports)
        if feeder is not None:
            lines += feeder.entries() if heard else []
            for name, address, backends in map(feeders.still_service, range(0 if feeder.knows_all else feeder.still)):
                listed = ", ".join(f"'{backend}'" for backend in backends)
                lines.append(f"  - {{name: {name}, address: '{address}:80', backends: [{listed}]}}")
            endpoints += feeders.SERVICES * feeders.ENDPOINTS + feeder.still * 10
        with open(os.path.join(folder, "agent.yaml"), "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        return file.name, endpoints

    def cpu(self, agent):
        """CPU seconds in each second."""
        time.sleep(0.1 if self.tiny else 1)  # the start is over
        begin, used = time.monotonic(), agent.cpu_seconds()
        time.sleep(max(1, self.seconds))
        return (agent.cpu_seconds() - used) / (time.monotonic() - begin)

    def connects(self, prefix, address, port, count):
        command = [*prefix, self.stage.program("connect_client"), "--mode", "connect", "--address", address, "--port", port,
                   "--count", count]
        return self.latencies(self.sound(self.stage.json(command, 120)), ["p50", "p99"], "connect")
