# SPDX-License-Identifier: Apache-2.0
"""What every scenario is. A new one is a class in a file of its own, and a line in __init__.py."""

import collections

from scenarios.stage import Failed

ARMS = ["native", "shunt", "slirp4netns", "pasta", "bypass4netns"]  # with a command in a container

# Percentile in a metric's name -> its field in what the measuring programs print.
PERCENTILES = {"p50": "p50_ns", "p90": "p90_ns", "p99": "p99_ns", "p99.9": "p99_9_ns", "p99.99": "p99_99_ns"}


class Scenario:
    """`title` says what is measured, for people. `metrics` are {name: (unit, "lower" or "higher" is better)}; the first one
    is the one that decides about the number of runs when a precision is asked for. `arms` are the ways it is measured; the
    program that an arm stands for, if it is not ours, is part of its name ("haproxy", "shunt+haproxy")."""

    title = ""
    arms = ARMS
    metrics = {}
    as_root = False  # inside the stage
    links_engine = ()  # arms whose program has the engine of its own build in it, and not that of --shunt

    def __init__(self, stage):
        self.stage = stage
        self.tiny = stage.arguments.tiny
        self.seconds = stage.arguments.seconds
        self.forget()

    def base(self, arm):
        """The arm that this one is compared with; None: with none."""
        return None if arm == "native" else "native"

    def floor(self, arm):
        """The arm that is the physical limit of this one, in the same run; its own is itself. None: there is no such thing."""
        del arm
        return "native"

    def prepare(self):
        """Before the first measurement."""

    def measure(self, arm):
        """Measures once; {metric: value, or None where the samples do not carry it}. Raises Unavailable or Failed."""
        raise NotImplementedError

    def forget(self):
        """Before each measurement."""
        self.without = {}  # metric -> why it has no value here, where that is no matter of the arm
        self.overheads = {}  # metric -> what measuring itself takes of it, in the metric's unit
        self.distributions = {}  # name -> the program's "histogram"
        self.lost = collections.Counter()  # what sound() let pass: error -> connections
        self.made = 0  # connections that were not, beside those

    def sound(self, measured):
        """The client's result, or Failed when too many connections went wrong to call it a measurement. Fewer are told with it."""
        errors = sum(measured["errors"].values())
        if errors > measured["samples"] / 100:
            raise Failed(f"{errors} of {errors + measured['samples']} connections failed: {measured['errors']}")
        if errors:
            self.lost.update(measured["errors"])
            self.made += measured["samples"]
        return measured

    def failed_connections(self):
        """A sentence about those that sound() let pass; "" if there are none."""
        failed = self.lost.total()
        of_each = ", ".join(f"{error}: {times:,}" for error, times in sorted(self.lost.items()))
        return f"{failed:,} of {failed + self.made:,} connections failed ({of_each}), which no percentile or rate shows" if failed else ""

    def rate(self, measured, name):
        """The metric `name`, operations in a second, of what connect_client has printed; keeps its overhead: what was lost with it."""
        per_second = measured["per_second"]
        share = min(per_second * measured["overhead_ns"] / 1e9 / measured["threads"], 0.5)
        self.overheads[name] = per_second * share / (1 - share)
        return {name: per_second}

    def latencies(self, measured, percentiles, name="", unit="us"):
        """The metrics "NAME pNN" (or "pNN") of what a measuring program has printed; keeps its histogram and overhead."""
        per_unit = {"ns": 1, "us": 1e3, "ms": 1e6}[unit]
        values = {}
        for percentile in percentiles:
            metric = f"{name} {percentile}".strip()
            nanoseconds = measured.get(PERCENTILES[percentile])
            values[metric] = None if nanoseconds is None else nanoseconds / per_unit
            if measured.get("overhead_ns") is not None:
                self.overheads[metric] = measured["overhead_ns"] / per_unit
        if measured.get("histogram"):
            self.distributions[name or "latency"] = measured["histogram"]
        return values
