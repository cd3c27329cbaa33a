#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Does an agent stay what it was under a mixed load? See tools/soak, which starts this."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

import drift
from load import PATIENCE, Failure, Load

ARENA = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "support", "arena")
SKIP = 77

# What counts as growth. Descriptors, memory and threads breathe with the containers that happen to be there: each brings
# a listener, two stores of twins and some views of its network. Latencies are the machine's as much as ours.
BOUNDS = (
    ("descriptors", "", drift.Bound(64, 0.25)),
    ("resident", "KiB", drift.Bound(2048, 0.0)),
    ("threads", "", drift.Bound(1, 0.0)),
    ("slots in use", "", drift.Bound(16, 0.0)),
    ("connect p50", "us", drift.Bound(50, 0.5)),
    ("connect p99", "us", drift.Bound(500, 1.0)),
)
# Shorter runs only try the soak itself: containers come and go in seconds, so every quarter is a matter of chance.
JUDGED_FROM_MINUTES = 2
# Left out at the beginning: the first containers of each kind, in which the heap finds its size.
WARM_UP = 0.1


def parse():
    parser = argparse.ArgumentParser(
        prog="tools/soak", description="Puts a mixed load on `shunt agent`, and tells whether it grows.",
        epilog="Exit status: 0 nothing grew, 1 something did or went wrong, 77 this machine cannot run it.")
    parser.add_argument("minutes", type=float, metavar="MINUTES", help="how long; less than 2 only tries the soak itself")
    parser.add_argument("--shunt", default="build/release/shunt", help="the program [build/release/shunt]")
    parser.add_argument("--guest", default="build/release/tests/soak/soak_guest",
                        help="the load [build/release/tests/soak/soak_guest]")
    parser.add_argument("--every", type=float, default=5, metavar="SECONDS", help="between two samples [5]")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.every <= 0:
        parser.error("MINUTES and SECONDS should be more than 0")
    for path in (arguments.shunt, arguments.guest):
        if not os.access(path, os.X_OK):
            parser.error(f"no program {path}: build it (cmake --preset release && cmake --build --preset release)")
    return arguments


def measure(load, seconds, every):
    """{metric: [(when, value)]}, while the load runs."""
    series = {name: [] for name, _, _ in BOUNDS}
    begin = time.monotonic()
    while (now := time.monotonic()) - begin < seconds:
        for name, value in load.agent.sample().items():
            series[name].append((now, value))
        counters = load.agent.counters()
        series["slots in use"].append((now, counters.get("waits_begun", 0) - counters.get("waits_ended", 0)))
        load.look()
        if load.troubles:
            break
        time.sleep(max(0.0, min(begin + seconds, now + every) - time.monotonic()))
    for when, _, p50, p99 in list(load.latencies):
        series["connect p50"].append((when, p50))
        series["connect p99"].append((when, p99))
    settled = begin + WARM_UP * seconds
    return {name: [sample for sample in samples if sample[0] >= settled] for name, samples in series.items()}


def settle(load, before):
    """What is held when all containers have gone: waits for as little as `before`, but not for ever."""
    end = time.monotonic() + PATIENCE
    while True:
        now, counters = load.agent.sample(), load.agent.counters()
        answered = counters.get("answered", 0) + counters.get("gone", 0)
        waiting = counters.get("waits_begun", 0) - counters.get("waits_ended", 0)
        # Not less than none: who leaves before the engine has received his call is counted as gone alone.
        lost = max(0, counters.get("received", 0) - answered)
        if (now["descriptors"] <= before["descriptors"] and waiting == lost == 0) or time.monotonic() > end:
            return now, counters, waiting, lost
        time.sleep(0.1)


def judge_rest(load, before, kinds_before, now, waiting, lost):
    if now["descriptors"] > before["descriptors"]:
        more = ", ".join(f"{count} {kind}" for kind, count in (load.agent.kinds() - kinds_before).items())
        load.troubles.append(f"{now['descriptors']} descriptors are left of all containers; "
                             f"before there were {before['descriptors']}: now more by {more}")
    if now["threads"] > before["threads"]:
        load.troubles.append(f"{now['threads']} threads are left; before there were {before['threads']}")
    if waiting:
        load.troubles.append(f"{waiting} slots are taken, and nobody waits")
    if lost:
        load.troubles.append(f"{lost} notifications were neither answered nor gone")


def soak(arguments):
    load = Load(arguments.shunt, arguments.guest)
    try:
        load.begin()
        before, kinds_before = load.agent.sample(), load.agent.kinds()
        load.load()
        series = measure(load, arguments.minutes * 60, arguments.every)
        load.stop()
        now, counters, waiting, lost = settle(load, before)
        judge_rest(load, before, kinds_before, now, waiting, lost)
        if (status := load.agent.stop()) != 0:
            load.troubles.append(f"the agent ended with {status}: {load.agent.log()[-2000:]}")
        load.troubles += [line for line in load.agent.log().splitlines() if " error: " in line]
        connects = sum(count for _, count, _, _ in load.latencies)
    except Failure as failure:
        load.troubles.append(str(failure))
        return {"troubles": load.troubles, "rows": [], "missing": []}
    finally:
        load.stopping.set()
        load.close()
    return {"minutes": arguments.minutes, "rows": [drift.row(name, unit, series[name], bound)
                                                   for name, unit, bound in BOUNDS if series[name]],
            "missing": [name for name, _, _ in BOUNDS if not series[name]], "troubles": load.troubles,
            "ended": load.ended, "steady connects": connects, "counters": counters,
            "before": before, "after": now}


def report(outcome, as_json):
    """Prints it; the exit status."""
    troubles = outcome["troubles"] + [f"no sample of {name}" for name in outcome["missing"]]
    judged = outcome.get("minutes", 0) >= JUDGED_FROM_MINUTES
    grew = [row.name for row in outcome["rows"] if row.grew and judged]
    failed = bool(troubles or grew)
    if as_json:
        rows = [{**row._asdict(), "bound": str(row.bound), "grew": row.grew} for row in outcome["rows"]]
        print(json.dumps({**outcome, "rows": rows, "troubles": troubles, "verdict": "failed" if failed else "ok"}, indent=1))
        return int(failed)
    if outcome["rows"]:
        print(drift.table(outcome["rows"]))
        print("\nended meanwhile: " + ", ".join(f"{count} {what}" for what, count in outcome["ended"].items())
              + f"; {outcome['steady connects']} connects of the steady client; "
              f"{outcome['counters'].get('received', 0)} calls in all")
        print("without containers, before and after: " + ", ".join(
            f"{name} {outcome['before'][name]} -> {outcome['after'][name]}" for name in outcome["before"]))
    for trouble in troubles:
        print(f"trouble: {trouble}")
    verdict = "grew beyond its bound: " + ", ".join(grew) if grew else "nothing grew beyond its bound"
    if not judged:
        verdict = f"less than {JUDGED_FROM_MINUTES} minutes, too short to judge growth"
    print(("failed: " if failed else "ok: ") + verdict + ("; see the troubles" if troubles else ""))
    return int(failed)


def main():
    arguments = parse()
    missing = [name for name in ("setpriv", "newuidmap") if not shutil.which(name)]
    if not shutil.which("runc") and not shutil.which("crun"):
        missing.append("runc or crun")
    if missing:
        print("skipped: not installed: " + ", ".join(missing))
        return SKIP
    if not arguments.inside:
        return subprocess.run([ARENA, "--", sys.executable, "-B", *sys.argv, "--inside"], check=False).returncode
    return report(soak(arguments), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
