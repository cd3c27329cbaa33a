# SPDX-License-Identifier: Apache-2.0
"""What shunt wants to reach, as figures of results.json, and whether a result has reached it. A bar that is missed stays here:
docs/performance.md says of each why."""

import dataclasses
import math
import statistics

import arithmetic
import course
import report
from scenarios import SCENARIOS

HEAD = ["bar", "of", "is", "wanted", ""]
MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"
# How much dearer the same may be: calls in a loop repeat within 2% on a quiet machine, connections hardly within 10%.
CALLS, NETWORK = 0.05, 0.1


@dataclasses.dataclass(frozen=True)
class Bar:
    """`kind` says what is held to `bound`: "times" the value of the arm `beside` in the same run; what it "adds" to that; the
    value "itself"; "tail", times this arm's own value in the metric `beside`; "same": the interval of the ratio to `beside` shows
    no difference, and ends before one that is dearer by `bound`."""

    what: str
    scenario: str
    metric: str
    arm: str
    kind: str
    bound: float = 0
    beside: str = ""
    at_least: bool = False


BARS = [
    Bar("an accelerated connect", "connect", "connect p50", "shunt", "times", 3.5, "native"),
    Bar("what acceleration adds to a connect", "connect", "connect p50", "shunt", "adds", 17, "native"),
    Bar("the tail of a connect", "connect", "connect p99", "shunt", "tail", 3, "connect p50"),
    Bar("a trapped call that is answered at once", "floor", "p50", "shunt-pin", "times", 1.15, "bare-pin"),
    Bar("8 threads in a closed loop", "closed-loop", "8 threads", "shunt", "times", 0.6, "native", at_least=True),
    Bar("4 containers in a closed loop", "closed-loop", "4 containers", "shunt", "times", 0.6, "native", at_least=True),
    *(Bar(f"iperf3, {metric}", "throughput", metric, "shunt", "times", 0.97, "native", at_least=True)
      for metric in ("1 stream up", "1 stream down", "4 streams up", "4 streams down")),
    *(Bar(f"{call}, which is not trapped", "untrapped", call, "shunt", "same", CALLS, "any-filter")
      for call in ("close", "fcntl", "setsockopt", "getpeername", "read", "write")),
    Bar("an agent with 1000 containers", "scale", "memory", "shunt 1000", "itself", 32),
    Bar("an agent with 1000 idle containers", "scale", "idle CPU", "shunt 1000", "itself", 1),
    *(Bar(f"a calm container beside {flood}", "fairness", "calm p99", f"{flood}-yielding", "times", 3, "none")
      for flood in ("connects", "epolls", "tables")),
    *(Bar(f"engines that are {how}: calls that failed", "crash", "failed calls", f"shunt {how}", "itself", 0)
      for how in ("killed", "upgraded")),
    Bar("a refused call", "handlers", "p50", "shunt refused", "times", 1.15, "bare refused"),
    Bar("what a mkdir by a worker adds", "handlers", "p50", "shunt mkdir", "adds", 40, "native mkdir"),
    Bar("mkdirs by workers, 4 threads", "handlers", "rate", "shunt mkdir 4 threads", "itself", 20000, at_least=True),
    Bar("what a mknod in place adds", "handlers", "p50", "shunt mknod", "adds", 60, "native mknod"),
    Bar("a device as a mount", "handlers", "p50", "shunt device", "itself", 300),
    Bar("a proc with eight masks", "handlers", "p50", "shunt proc", "itself", 400),
    Bar("what balancing adds to a connection", "balance", "connect+echo+close p50", "services", "adds", 1, "shunt"),
    *(Bar(f"a new connection by a service beside {proxy}", "balance", "connect+echo+close p50", "services", "times", 1, proxy)
      for proxy in ("haproxy", "nginx", "shunt+haproxy", "shunt+nginx")),
    Bar("requests on kept connections", "balance", "wrk, 16 kept connections", "services", "same", NETWORK, "native"),
    *(Bar(f"CPU of a request beside {proxy}", "balance", "CPU per request", "services", "times", 1, proxy)
      for proxy in ("haproxy", "nginx")),
    *(Bar(f"start with 100,000 endpoints, {where}", "many-services", "start", f"shunt {arm}", "itself", 2)
      for arm, where in (("still", "configured"), ("cluster", "of a cluster"))),
    *(Bar(f"a connect beside 1,000 changes a second, {source}", "many-services", "connect p99", f"shunt {source}", "same",
          NETWORK, "shunt unheard") for source in ("files", "etcd", "cluster")),
]


def arms_of(bar):
    return [bar.arm] + ([bar.beside] if bar.kind in ("times", "adds", "same") else [])


def values_of(bar, metrics):
    """One for each run that has what it takes."""
    metric = metrics.get(bar.metric, {"arms": {}})
    other = metrics.get(bar.beside, {"arms": {}}) if bar.kind == "tail" else metric
    if bar.arm not in metric["arms"] or bar.arm not in other["arms"]:
        return []
    if bar.kind == "itself":
        return arithmetic.present(metric["arms"][bar.arm]["values"])
    if bar.kind == "tail":
        pairs = zip(metric["arms"][bar.arm]["values"], other["arms"][bar.arm]["values"])
        return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]
    if bar.kind == "adds":
        if bar.beside not in metric["arms"]:
            return []
        pairs = zip(metric["arms"][bar.arm]["values"], metric["arms"][bar.beside]["values"])
        return [mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None]
    return arithmetic.paired(metric, bar.arm, bar.beside)


def why_nothing(bar, notes):
    """Why the scenario has no value for the bar."""
    reasons = [f"{arm}: {notes[arm]['state']}" for arm in arms_of(bar) if arm in notes and notes[arm]["state"] != course.DISTURBED]
    return reasons[0] if reasons else NOT_MEASURED


def failures(bar, scenario, values):
    """Which arms lack runs because they failed; "" if none does."""
    failed = [arm for arm in arms_of(bar) if scenario["notes"].get(arm, {}).get("state") == course.FAILED]
    missing = scenario["runs"] - len(values)
    return f"; {' and '.join(failed)} failed, {missing} of {scenario['runs']} runs say nothing" if failed and missing else ""


def said_of_same(bar, bounds, better):
    if bounds is None:
        return arithmetic.UNKNOWN
    if better == "higher":  # dearer is what there is less of
        bounds = [1 / bound if bound else math.inf for bound in reversed(bounds)]
    low, high = bounds
    if low > 1:
        return MISSED
    return MET if high <= 1 + bar.bound else arithmetic.CANNOT_TELL


def said_of_bound(bar, middle, bounds):
    said = MET if (middle >= bar.bound if bar.at_least else middle <= bar.bound) else MISSED
    return said + (", within the noise" if bounds and bounds[0] <= bar.bound <= bounds[1] and bounds[0] != bounds[1] else "")


def cells(bar, scenario):
    """A row of text. `scenario`: None if it was not measured."""
    metrics = {metric["name"]: metric for metric in scenario["metrics"]} if scenario else {}
    is_ratio = bar.kind in ("times", "tail", "same")
    in_units = metrics[bar.metric]["unit"] if bar.metric in metrics else SCENARIOS[bar.scenario].metrics[bar.metric][0]
    unit = "x" if is_ratio else f" {in_units}".rstrip()
    beside = {"tail": bar.beside, "itself": ""}.get(bar.kind, f"beside {bar.beside}")
    of = " ".join(filter(None, [bar.scenario + ":", bar.arm + ",", bar.metric, beside]))
    wanted = f"no difference within {bar.bound * 100:g}%" if bar.kind == "same" else \
        f"at {'least' if bar.at_least else 'most'} {bar.bound:g}{unit}"
    values = values_of(bar, metrics)
    if not values:
        return [bar.what, of, "", wanted, why_nothing(bar, scenario["notes"]) if scenario else NOT_MEASURED]
    middle, bounds = statistics.median(values), arithmetic.interval(values)
    figure = f"{report.number(middle)}{unit}"
    if bounds and bounds[0] != bounds[1]:
        figure += f" ({report.between(*bounds) if is_ratio else ' to '.join(map(report.number, bounds))})"
    if bar.kind == "same":
        said = said_of_same(bar, bounds, metrics[bar.metric]["better"])
    else:
        said = said_of_bound(bar, middle, bounds)
    return [bar.what, of, figure, wanted, said + failures(bar, scenario, values)]


def rows(result):
    """Of the bars whose scenarios the result has."""
    measured = {scenario["name"]: scenario for scenario in result["scenarios"]}
    return [cells(bar, measured[bar.scenario]) for bar in BARS if bar.scenario in measured]


def rows_of_all(several):
    """Of all bars: what each result says, and those last that were measured in none."""
    measured = {scenario["name"] for result in several for scenario in result["scenarios"]}
    found = [row for result in several for row in rows(result)]
    return found + [cells(bar, None) for bar in BARS if bar.scenario not in measured]


def as_table(rows_of_cells):
    """In Markdown."""
    lines = ["| " + " | ".join(map(report.markdown_cell, row)) + " |" for row in rows_of_cells]
    return "\n".join(["| " + " | ".join(HEAD) + " |", "|---|---|---|---|---|", *lines]) + "\n"


def markdown(result):
    """A table; "" if there is nothing to say."""
    found = rows(result)
    return as_table(found) if found else ""
