# SPDX-License-Identifier: Apache-2.0
"""What bench/run measures: one class per scenario, each in a file of its own.

An arm is a way to run a command (natively, under shunt, over slirp4netns, over pasta). A scenario measures one arm once
per call and returns {metric: value}; the interleaving and the bookkeeping are in course.py, the arithmetic is in
arithmetic.py. They run inside bench/stage, as an ordinary user where they can.
"""

from scenarios.apps import Memcached, Pgbench, Redis, Wrk
from scenarios.balance import Balance
from scenarios.closed_loop import ClosedLoop
from scenarios.connect import Connect
from scenarios.counted import Counted
from scenarios.crash import Crash
from scenarios.failover import Failover
from scenarios.fairness import Fairness
from scenarios.floor import Floor
from scenarios.handlers import Handlers
from scenarios.many_services import ManyServices
from scenarios.notify import Notify
from scenarios.parts import Parts
from scenarios.quick import Quick
from scenarios.scale import Scale
from scenarios.throughput import Throughput
from scenarios.untrapped import Untrapped
from scenarios.ways import Ways

SCENARIOS = {"notify": Notify, "connect": Connect, "ways": Ways, "counted": Counted, "closed-loop": ClosedLoop, "throughput": Throughput,
             "floor": Floor, "untrapped": Untrapped, "scale": Scale, "quick": Quick, "fairness": Fairness,
             "handlers": Handlers, "balance": Balance, "failover": Failover, "crash": Crash, "many-services": ManyServices,
             "parts": Parts, "redis": Redis, "memcached": Memcached, "pgbench": Pgbench, "wrk": Wrk}

# What is measured together under one name.
GROUPS = {"apps": ("redis", "memcached", "pgbench", "wrk")}

# What is measured when nothing is named: some minutes.
DEFAULT = ("connect", "floor", "untrapped", "throughput")


def expanded(names):
    """The scenarios that are meant, each once: of a group all that it has."""
    return list(dict.fromkeys(one for name in names for one in GROUPS.get(name, (name,))))
