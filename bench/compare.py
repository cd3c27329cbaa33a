# SPDX-License-Identifier: Apache-2.0
"""`shunt bench compare`: what changed between two results, as far as they can tell.

Machines drift, so what has a base is compared by its ratio to the base. A base that has none of our code only shows the drift.
What has no base, or whose base has no value of this kind, is compared as it is; so is, beside its ratio, what no machine makes
slower: of memory, and of what is counted, all arms of ours may take more alike. Changes are told as how many times dearer: above
1 is worse, whichever way a metric goes.
"""

import dataclasses
import json
import math
import statistics

import arithmetic
import course
import peers
import places
import report
import results

REGRESSION, MISSING, DRIFT = "REGRESSION", "MISSING", "the machine"
NO_WORSE = "no worse"
UNDECIDED = arithmetic.CANNOT_TELL, arithmetic.UNKNOWN
# How far an interval may reach for a true change of twice the bound to be found four times in five, and for none to be told as
# none as often: the bound is then 1.96 + 0.84 standard errors away from both.
SHARE_OF_BOUND = 0.7
LEAST_BOUND = 1e-6  # no number of runs tells less
FOREIGN = "native", "bare", "any-filter"  # how arms begin that run neither our code nor a peer
ABOUT = """Says what changed from one result to another, with 95% intervals. Where an arm has a base (native), its ratio to
the base is compared: machines drift. Where the base has no value, the value is; and counts and memory by both. "cannot tell"
stands where the interval reaches beyond the bound and does not lie there as a whole, with the number of runs (shunt bench
--runs) that would tell. Exit status: 1 when something has become dearer by more than the bound, with its whole interval, or
has values in the first result and none in the second; with --strict also when it cannot tell, or an arm has failed that did
not before; 2 for wrong use, and what it cannot read or write; else 0."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one arm in one metric: `change` is (middle, low, high) of how many times dearer it is, or None; `runs`, for
    what cannot be told, how many of each would tell, or None if no number does; `why` there is no value any more."""

    scenario: str
    metric: str
    arm: str
    of: str
    change: tuple | None
    verdict: str
    runs: int | None = None
    why: str = ""


def read(path):
    """Raises results.Unusable."""
    return results.read(path, lambda result: (comparison(result, result, 0), warnings(result, result)))


def disagreement(before, after):
    """What both call by one name and is not the same; "" if there is no such thing."""
    later = metrics_of(after)
    for (scenario, name), former in metrics_of(before).items():
        metric = later.get((scenario, name), former)
        said, says = [f"in {one['unit'] or 'numbers'}, {one['better']} is better" for one in (former, metric)]
        if said != says:
            return f"{scenario}: {name} is {says} there, and {said} in the first result; measure both with one shunt bench"
    return ""


def bases(metric):
    return {measured["base"] for measured in metric["arms"].values() if measured["base"]}


def has_our_code(arm):
    return arm.startswith(("shunt", "services")) or not (arm.startswith(FOREIGN) or peers.peer_of(arm))


def is_of_speed(unit):
    """Whether a slower machine has another value: of times and rates."""
    return unit in report.TIMES or unit.endswith("/s")


def present(metric, arm):
    return arithmetic.present(metric["arms"][arm]["values"]) if arm in metric["arms"] else []


def values_of(metric, arm, by_ratio):
    return arithmetic.ratios(metric, arm) if by_ratio else present(metric, arm)


def is_nothing(values):
    """Whether there is no ratio to them, as they are zeros."""
    return sum(map(bool, values)) < min(arithmetic.FEWEST_RUNS, len(values))


def ways(former, metric, arm):
    """How the arm's values are compared: [by_ratio]. `metric`: what the second result has of it, or None."""
    base = former["arms"][arm]["base"]
    has_ratio = len(arithmetic.ratios(former, arm)) >= min(arithmetic.FEWEST_RUNS, len(present(former, arm)))
    if metric is not None and is_nothing(present(metric, base)):
        has_ratio = False
    if not has_ratio:
        return [False]
    return [True, False] if has_our_code(arm) and not is_of_speed(former["unit"]) else [True]


def verdict_without_ratio(before, after, is_drift, bound):
    """Where there are zeros (calls that failed, idle CPU): what lies beyond the other's whole interval has changed."""
    bounds = arithmetic.interval(before), arithmetic.interval(after)
    if None in bounds:
        return arithmetic.UNKNOWN
    (low_before, high_before), (low_after, high_after) = bounds
    is_no_worse = high_after <= low_before * (1 + bound)
    if is_no_worse and high_before <= low_after * (1 + bound):
        return arithmetic.SAME
    if is_drift:
        return DRIFT
    if high_after < low_before:
        return arithmetic.BETTER
    if low_after > high_before * (1 + bound):
        return REGRESSION
    return NO_WORSE if is_no_worse else arithmetic.CANNOT_TELL


def verdict(change, is_drift, bound):
    _, low, high = change
    is_same = 1 / (1 + bound) <= low <= 1 <= high <= 1 + bound
    if is_drift:
        return arithmetic.SAME if is_same else DRIFT
    if high > 1 + bound:
        return REGRESSION if low > 1 + bound else arithmetic.CANNOT_TELL
    if high < 1:
        return arithmetic.BETTER
    return arithmetic.WORSE if low > 1 else arithmetic.SAME if is_same else NO_WORSE


def runs_needed(before, after, bound):
    """How many runs of each would tell, going by the spread of these: an interval narrows as the root of their number grows."""
    if bound < LEAST_BOUND:
        return None
    squares = sum(max(math.log(side) for side in (middle / low, high / middle)) ** 2 * count
                  for middle, (low, high), count in ((statistics.median(values), arithmetic.interval(values), len(values))
                                                     for values in (before, after)))
    return math.ceil(squares / (SHARE_OF_BOUND * math.log(1 + bound)) ** 2)


def metrics_of(result):
    """{(scenario, metric): its part of the result}."""
    return {(scenario["name"], metric["name"]): metric for scenario in result["scenarios"] for metric in scenario["metrics"]}


def comparison(before, after, bound):
    """A row for each arm and metric of which the first result has values, in its order."""
    later = metrics_of(after)
    notes = {(scenario["name"], arm): about for scenario in after["scenarios"] for arm, about in scenario["notes"].items()}
    return [compared(scenario, former, later.get((scenario, name)), arm, notes.get((scenario, arm)), by_ratio, bound)
            for (scenario, name), former in metrics_of(before).items() for arm in former["arms"] if present(former, arm)
            for by_ratio in ways(former, later.get((scenario, name)), arm)]


def compared(scenario, former, metric, arm, note, by_ratio, bound):
    """`metric`, `note`: what the second result has of it, or None."""
    base = former["arms"][arm]["base"]
    about = scenario, former["name"], arm, f"ratio to {base}" if by_ratio else former["unit"] or "value"
    if metric is None or arm not in metric["arms"]:
        return Row(*about, None, MISSING, why="it was not asked for")
    if by_ratio and metric["arms"][arm]["base"] != base:
        return Row(*about, None, MISSING, why=f"it is compared with {metric['arms'][arm]['base'] or 'nothing'} there")
    sets = values_of(former, arm, by_ratio), values_of(metric, arm, by_ratio)
    has_failed = note is not None and note["state"] == course.FAILED
    if not sets[1] or (has_failed and len(sets[1]) < arithmetic.FEWEST_RUNS <= len(sets[0])):
        missing = f"{base} has none" if present(metric, arm) else "it has none, and no reason"
        return Row(*about, None, MISSING, why=f"{note['state']}: {note['why']}" if note else missing)
    is_drift = base is None and arm in bases(former) and not has_our_code(arm)
    if metric["better"] == "higher":  # dearer is what there is less of
        sets = sets[::-1]
    change = arithmetic.quotient(*sets)
    said = verdict(change, is_drift, bound) if change else verdict_without_ratio(*sets, is_drift, bound)
    runs = arithmetic.FEWEST_RUNS if said == arithmetic.UNKNOWN else None
    if said == arithmetic.CANNOT_TELL and change:
        runs = runs_needed(*sets, bound)
    return Row(*about, change, said, runs)


def failures(before, after):
    """What has failed in the second result, now and then or always, and not in the first."""
    def failed(result):
        return {(scenario["name"], arm): about["why"] for scenario in result["scenarios"]
                for arm, about in scenario["notes"].items() if about["state"] == course.FAILED}
    known = failed(before)
    return [f"{scenario}: {arm}: {why}" for (scenario, arm), why in failed(after).items() if (scenario, arm) not in known]


def only_in(one, other):
    """What one result has values of and the other has not, be it that the arm has failed there."""
    def names(result):
        return {f"{scenario['name']}: {metric['name']}: {arm}" for scenario in result["scenarios"]
                for metric in scenario["metrics"] for arm, measured in metric["arms"].items()
                if arithmetic.present(measured["values"])}
    return sorted(names(one) - names(other))


def warnings(before, after):
    texts = []
    for name in ("kernel", "cpu", "cpus", "governor"):
        mine, theirs = before["environment"].get(name), after["environment"].get(name)
        if mine != theirs:
            texts.append(f"different {name}: {mine} before, {theirs} after: ratios may differ for that alone")
    for result, name in ((before, "the first"), (after, "the second")):
        if not result.get("complete", True):
            texts.append(f"{name} result is incomplete")
    more = only_in(after, before)
    if more:
        others = f" and {len(more) - 3} more" if len(more) > 3 else ""
        texts.append(f"only in the second: {', '.join(more[:3])}{others}")
    titles = {scenario["name"]: scenario["title"] for scenario in before["scenarios"]}
    texts += [f"scenario {scenario['name']} is not the same: \"{titles[scenario['name']]}\" and \"{scenario['title']}\""
              for scenario in after["scenarios"] if titles.get(scenario["name"], scenario["title"]) != scenario["title"]]
    return texts


def lines(rows):
    cells = [["scenario", "metric", "arm", "of", "dearer", "95%", "verdict", "takes"]]
    for row in rows:
        cells.append([row.scenario, row.metric, row.arm, row.of, report.times(row.change[0]) if row.change else "",
                      report.between(*row.change[1:]) if row.change else "", row.verdict, f"{row.runs} runs" if row.runs else ""])
    return report.table(cells, {4, 5, 7})


def missing_lines(rows):
    arms = {}
    for row in rows:
        if row.verdict == MISSING:
            arms.setdefault((row.scenario, row.arm, row.why), {})[row.metric] = None  # once, however it is compared
    return [f"no value in the second result: {scenario}: {arm}: {', '.join(metrics)}: {why}"
            for (scenario, arm, why), metrics in arms.items()]


def undecided_line(rows, bound):
    undecided = [row for row in rows if row.verdict in UNDECIDED]
    if not undecided:
        return []
    text = f"{arithmetic.CANNOT_TELL}: of {len(undecided)} of {len(rows)} changes whether they are beyond {bound * 100:g}%"
    runs = [row.runs for row in undecided if row.runs]
    if runs:
        which = "of all" if len(runs) == len(undecided) else f"of {len(runs)}"
        text += f"; as these values spread, {max(runs)} runs in both results would tell {which}"
    return [text]


def as_json(rows, texts, failed, bound):
    return json.dumps({"bound": bound, "warnings": texts, "failed": failed,
                       "regression": any(row.verdict == REGRESSION for row in rows),
                       "missing": any(row.verdict == MISSING for row in rows),
                       "undecided": any(row.verdict in UNDECIDED for row in rows),
                       "changes": [{"scenario": row.scenario, "metric": row.metric, "arm": row.arm, "of": row.of,
                                    "dearer": row.change[0] if row.change else None,
                                    "interval": list(row.change[1:]) if row.change else None, "verdict": row.verdict,
                                    "runs_needed": row.runs, "why": row.why or None} for row in rows]}, indent=1)


def main(program, words):
    parser = places.Parser(f"{program} compare", ABOUT,
                           [("before/results.json after/results.json", "what changed"),
                            ("before/results.json after/results.json --bound 10%", "overlooks what is smaller"),
                            ("before/results.json after/results.json --strict", "a gate that passes only what it is sure of")])
    parser.add_argument("before", metavar="A.json", help="the first result, or its directory")
    parser.add_argument("after", metavar="B.json", help="the second one, or its directory")
    parser.add_argument("--bound", default="5%", metavar="P", help="how much dearer is no regression yet (default 5%%)")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when it cannot tell, or an arm fails anew")
    parser.add_argument("--common", action="store_true", help="leave out what the second result has no value of")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    arguments = parser.parse_args(words)
    try:
        bound = arithmetic.share(arguments.bound)
    except ValueError:
        parser.error(f"--bound: {arguments.bound!r} is no share such as 5%")
    try:
        before, after = read(arguments.before), read(arguments.after)
    except results.Unusable as error:
        parser.error(str(error))
    if why := disagreement(before, after):
        parser.error(f"{arguments.after} does not compare: {why}")
    rows, texts, failed = comparison(before, after, bound), warnings(before, after), failures(before, after)
    if arguments.common:
        texts += [f"left out: {line}" for line in missing_lines(rows)]
        rows = [row for row in rows if row.verdict != MISSING]
    has_in_common = rows and {row.scenario for row in rows} & {scenario["name"] for scenario in after["scenarios"]}
    if not has_in_common:
        parser.error("these results have nothing in common")
    if arguments.json:
        parser.answer(as_json(rows, texts, failed, bound))
    else:
        missing = [f"{MISSING}: {line}" for line in missing_lines(rows)]
        missing += [f"failed in the second result: {line}" for line in failed]
        parser.answer("\n".join([f"warning: {text}" for text in texts] + lines(rows) + missing + undecided_line(rows, bound)))
    fatal = {REGRESSION, MISSING, *(UNDECIDED if arguments.strict else ())}
    return 1 if any(row.verdict in fatal for row in rows) or (arguments.strict and failed) else 0
