# SPDX-License-Identifier: Apache-2.0
"""The course of a measurement: which arm when, how many runs, what came of each, and who has failed too often.

The arms take turns, so that they share whatever the machine is going through (A B C C B A A B C ...: forth and back, so that
neither a machine that gets slower nor whoever ran before makes one of them look worse). With a precision, runs go on until
the interval of every arm's ratio in the scenario's first metric is that narrow, or there were `most` of them.
"""

import dataclasses
import time

import arithmetic

FAILURES_TO_GIVE_UP = 2
MEASURED, ABSENT, FAILED, DISTURBED = "measured", "absent", "failed", "disturbed"
NOT_BEGUN, STOPPED = "not begun", "stopped"
NOTED = ABSENT, FAILED, DISTURBED, NOT_BEGUN, STOPPED  # what a note can say of an arm


@dataclasses.dataclass
class Plan:
    """How often: `runs` times, or from the fewest that have an interval up to `most` with a `precision` (0.03: 3%)."""

    runs: int = 7
    precision: float | None = None
    most: int = 60

    def fewest(self):
        return arithmetic.FEWEST_RUNS + 1 if self.precision else self.runs

    def longest(self):
        return self.most if self.precision else self.runs


class Stopped(Exception):
    """Somebody wants no more; what was measured stays."""


class Tally:
    """What one scenario's measurements have given, in the form of results.json."""

    def __init__(self, name, scenario, arms):
        self.name, self.scenario, self.arms = name, scenario, arms
        self.values = {arm: {metric: [] for metric in scenario.metrics} for arm in arms}
        self.overheads = {arm: {metric: [] for metric in scenario.metrics} for arm in arms}
        self.distributions = {}
        self.without = {}
        self.notes = {arm: {"state": NOT_BEGUN, "why": "the measurement was stopped before", "last_lines": []} for arm in arms}
        self.failures = dict.fromkeys(arms, 0)
        self.disturbances = dict.fromkeys(arms, 0)
        self.runs = 0
        self.precision = None

    def gives_up(self, arm):
        return self.failures[arm] >= FAILURES_TO_GIVE_UP

    def add(self, arm, answer):
        """Takes in what a measurement has come to: {"state": ..., "values": ...} (on_stage.py)."""
        state = answer["state"]
        if self.notes.get(arm, {}).get("state") == NOT_BEGUN:
            del self.notes[arm]
        if state != MEASURED:
            self.failures[arm] += FAILURES_TO_GIVE_UP if state == ABSENT else 1
            self.notes[arm] = {"state": state, "why": answer["why"], "last_lines": answer.get("last_lines", [])}
        elif "disturbed" in answer:
            self.disturbances[arm] += 1
            self.notes.setdefault(arm, {"state": DISTURBED, "last_lines": []})
            if self.notes[arm]["state"] == DISTURBED:
                self.notes[arm]["why"] = f"in {self.disturbances[arm]} of its runs, this one the last: {answer['disturbed']}"
        for metric in self.scenario.metrics:
            self.values[arm][metric].append(answer.get("values", {}).get(metric))
            overhead = answer.get("overheads", {}).get(metric)
            if overhead is not None:
                self.overheads[arm][metric].append(overhead)
        self.without |= answer.get("without", {})
        for name, histogram in answer.get("distributions", {}).items():
            known = self.distributions.setdefault(name, {}).setdefault(arm, {"sub_bits": histogram["sub_bits"], "counts": {}})
            for index, count in histogram["counts"]:
                known["counts"][index] = known["counts"].get(index, 0) + count

    def stop(self, arm, run, seconds):
        """Takes in that everything was stopped while this arm was measured: it may be why."""
        if self.notes.get(arm, {}).get("state") in (None, NOT_BEGUN):
            self.notes[arm] = {"state": STOPPED, "why": f"while it was measured, in run {run} for {seconds:.1f} s", "last_lines": []}

    def narrow_enough(self, precision):
        metric = self.result()["metrics"][0]
        widths = [arithmetic.width(arithmetic.ratios(metric, arm)) for arm in self.arms
                  if metric["arms"][arm]["base"] and not self.gives_up(arm)]
        reached = None if not widths or None in widths else max(widths)
        self.precision = {"asked": precision, "reached": reached, "metric": metric["name"]}
        return not widths or (reached is not None and reached <= precision)

    def arm_values(self, arm, metric):
        values = self.values[arm][metric]
        overheads = self.overheads[arm][metric]
        return {"base": self.listed(self.scenario.base(arm)), "floor": self.listed(self.scenario.floor(arm)),
                "overhead": arithmetic.median_and_spread(overheads)[0] if overheads else None,
                "values": values + [None] * (self.runs - len(values))}

    def listed(self, arm):
        return arm if arm in self.arms else None

    def result(self):
        metrics = [{"name": metric, "unit": unit, "better": better, "without": self.without.get(metric),
                    "arms": {arm: self.arm_values(arm, metric) for arm in self.arms}}
                   for metric, (unit, better) in self.scenario.metrics.items()]
        distributions = {name: {arm: {"sub_bits": one["sub_bits"], "counts": sorted([i, n] for i, n in one["counts"].items())}
                                for arm, one in arms.items()} for name, arms in self.distributions.items()}
        return {"name": self.name, "title": self.scenario.title, "runs": self.runs, "precision": self.precision,
                "metrics": metrics, "distributions": distributions, "notes": self.notes}


class Course:
    """Measures scenario by scenario. `tallies` holds what there is, at any time."""

    def __init__(self, plan, watch, now=time.monotonic):
        """`watch(done, to do, seconds left or None, words)` is told before each measurement."""
        self.plan, self.watch, self.now = plan, watch, now
        self.tallies = []
        self.durations = {}  # (scenario, arm) -> [seconds]
        self.ahead = []  # [(name, scenario, arms)] that have not begun

    def run(self, scenarios, measure):
        """`scenarios`: [(name, scenario, arms)]; `measure(name, arm)` returns what Tally.add() takes, or raises Stopped."""
        self.ahead = list(scenarios)
        while self.ahead:
            self.tallies.append(Tally(*self.ahead.pop(0)))
            self.measure_scenario(self.tallies[-1], measure)

    def results(self):
        """All scenarios, those that were stopped and those that have not begun, too."""
        return [tally.result() for tally in self.tallies + [Tally(*one) for one in self.ahead]]

    def measure_scenario(self, tally, measure):
        for run in range(self.plan.longest()):
            for place, arm in enumerate(order := tally.arms if run % 2 == 0 else tally.arms[::-1]):
                if tally.gives_up(arm):
                    continue
                self.announce(tally, run, arm, [one for one in order[place:] if not tally.gives_up(one)])
                begin = self.now()
                try:
                    answer = measure(tally.name, arm)
                except Exception:
                    tally.stop(arm, run + 1, self.now() - begin)
                    raise
                tally.runs = run + 1
                tally.add(arm, answer)
                self.durations.setdefault((tally.name, arm), []).append(self.now() - begin)
            if all(map(tally.gives_up, tally.arms)):
                return
            if self.plan.precision and run + 1 >= self.plan.fewest() and tally.narrow_enough(self.plan.precision):
                return

    def announce(self, tally, run, arm, rest_of_run):
        done = sum(map(len, self.durations.values()))
        alive = [one for one in tally.arms if not tally.gives_up(one)]
        to_do = [(tally.name, one) for one in rest_of_run + alive * (self.plan.longest() - run - 1)]
        to_do += [(name, one) for name, _, arms in self.ahead for one in arms] * self.plan.longest()
        least = "at most " if self.plan.precision else ""
        self.watch(done, len(to_do), self.expected(to_do),
                   f"{tally.name}, run {run + 1} of {least}{self.plan.longest()}: {arm}")

    def expected(self, to_do):
        """Seconds that these will take, as far as those before them tell; None before the first."""
        known = [seconds for several in self.durations.values() for seconds in several]
        if not known:
            return None
        of_any = sum(known) / len(known)
        of_each = {key: sum(several) / len(several) for key, several in self.durations.items()}
        return sum(of_each.get(key, of_any) for key in to_do)
