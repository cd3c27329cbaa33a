# SPDX-License-Identifier: Apache-2.0
"""`shunt bench compare`: what changed between two results, as far as they can tell.

Machines drift, so what has a base is compared by its ratio to the base, and a base itself only shows the drift. What has none
(memory, say) is compared as it is. Changes are told as how many times dearer: above 1 is worse, whichever way a metric goes.
"""

import json
import math

import arithmetic
import places
import report

REGRESSION, DRIFT = "REGRESSION", "the machine"
ABOUT = """Says what changed from one result to another, with 95% intervals. Where an arm has a base (native), its ratio to the
base is compared: machines drift. Exit status: 1 when something has become dearer by more than the bound, with its whole
interval; 2 for wrong use; else 0."""


class Unusable(Exception):
    """A file that is no result."""


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        comparison(result, result, 0)  # these two look at everything
        warnings(result, result)
        return result
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"{path} is no results.json: {error}") from None


def bases(metric):
    return {measured["base"] for measured in metric["arms"].values() if measured["base"]}


def values_of(metric, arm):
    """Ratios where the arm has a base, else its values."""
    return arithmetic.ratios(metric, arm) if metric["arms"][arm]["base"] else arithmetic.present(metric["arms"][arm]["values"])


def verdict_without_ratio(before, after, is_drift, bound):
    """Where there are zeros (calls that failed, idle CPU): what lies beyond the other's whole interval has changed."""
    bounds = arithmetic.interval(before), arithmetic.interval(after)
    if None in bounds:
        return arithmetic.UNKNOWN
    (low_before, high_before), (low_after, high_after) = bounds
    if low_after <= high_before and low_before <= high_after:
        return arithmetic.SAME
    if is_drift:
        return DRIFT
    if high_after < low_before:
        return arithmetic.BETTER
    return REGRESSION if low_after > high_before * (1 + bound) else arithmetic.WORSE


def verdict(change, is_drift, bound):
    _, low, high = change
    if low <= 1 <= high:
        return arithmetic.SAME
    if is_drift:
        return DRIFT
    return REGRESSION if low > 1 + bound else arithmetic.WORSE if low > 1 else arithmetic.BETTER


def comparison(before, after, bound):
    """[(scenario, metric, arm, what, change or None, verdict)] of what both have; change is (middle, low, high)."""
    rows = []
    known = {(scenario["name"], metric["name"]): metric for scenario in before["scenarios"] for metric in scenario["metrics"]}
    for scenario in after["scenarios"]:
        for metric in scenario["metrics"]:
            former = known.get((scenario["name"], metric["name"]))
            for arm in metric["arms"]:
                if former and arm in former["arms"]:
                    rows.append(compared(scenario["name"], former, metric, arm, bound))
    return rows


def compared(scenario, former, metric, arm, bound):
    base = metric["arms"][arm]["base"]
    is_drift = base is None and arm in bases(metric)
    sets = values_of(former, arm), values_of(metric, arm)
    if metric["better"] == "higher":  # dearer is what there is less of
        sets = sets[::-1]
    change = arithmetic.quotient(*sets)
    said = verdict(change, is_drift, bound) if change else verdict_without_ratio(*sets, is_drift, bound)
    return (scenario, metric["name"], arm, f"ratio to {base}" if base else metric["unit"] or "value", change, said)


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
    for one, other, name in ((before, after, "first"), (after, before, "second")):
        missing = only_in(one, other)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            texts.append(f"only in the {name}: {', '.join(missing[:3])}{more}")
    titles = {scenario["name"]: scenario["title"] for scenario in before["scenarios"]}
    texts += [f"scenario {scenario['name']} is not the same: \"{titles[scenario['name']]}\" and \"{scenario['title']}\""
              for scenario in after["scenarios"] if titles.get(scenario["name"], scenario["title"]) != scenario["title"]]
    return texts


def lines(rows):
    cells = [["scenario", "metric", "arm", "of", "dearer", "95%", "verdict"]]
    for scenario, metric, arm, what, change, said in rows:
        cells.append([scenario, metric, arm, what, report.times(change[0]) if change else "",
                      report.between(*change[1:]) if change else "", said])
    return report.table(cells, {4, 5})


def as_json(rows, texts, bound):
    return json.dumps({"bound": bound, "warnings": texts, "regression": any(row[5] == REGRESSION for row in rows),
                       "changes": [{"scenario": scenario, "metric": metric, "arm": arm, "of": what,
                                    "dearer": change[0] if change else None, "interval": list(change[1:]) if change else None,
                                    "verdict": said} for scenario, metric, arm, what, change, said in rows]}, indent=1)


def main(program, words):
    parser = places.Parser(f"{program} compare", ABOUT,
                           [("before/results.json after/results.json", "what changed"),
                            ("before/results.json after/results.json --bound 10%", "overlooks what is smaller")])
    parser.add_argument("before", metavar="A.json", help="the first result")
    parser.add_argument("after", metavar="B.json", help="the second one")
    parser.add_argument("--bound", default="5%", metavar="P", help="how much dearer is no regression yet (default 5%%)")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    arguments = parser.parse_args(words)
    try:
        bound = float(arguments.bound.rstrip("%")) / (100 if arguments.bound.endswith("%") else 1)
        if not 0 <= bound < math.inf:
            raise ValueError
    except ValueError:
        parser.error(f"--bound: {arguments.bound!r} is no share such as 5%")
    try:
        before, after = read(arguments.before), read(arguments.after)
    except Unusable as error:
        parser.error(str(error))
    rows, texts = comparison(before, after, bound), warnings(before, after)
    if arguments.json:
        print(as_json(rows, texts, bound))
    else:
        print("\n".join([f"warning: {text}" for text in texts] + lines(rows)))
    if not rows:
        parser.error("these results have nothing in common")
    return 1 if any(row[5] == REGRESSION for row in rows) else 0
