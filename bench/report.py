# SPDX-License-Identifier: Apache-2.0
"""Turns the values of results.json (docs/bench-results.md) into tables: for a terminal, and in Markdown."""

import dataclasses
import re
import statistics

import arithmetic
import histogram

NOT_RESOLVED = "not resolved"  # the samples do not carry this percentile, not those of all runs together either
BESIDE_THE_LIMIT = 0.9999  # from here on a percentile is mostly the machine's: it says nothing without that of the limit
TIMES = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}  # in nanoseconds
CAPTION = ("Medians of the runs' values and their median absolute deviation; ratios run by run, with 95% intervals, each by "
           "itself. x floor: how many times dearer than the limit in the same run. own: what measuring takes of the figure. "
           "runs: \"all\" is a percentile that only the samples of all runs together carry.")


@dataclasses.dataclass
class Row:
    """One arm's figures in one metric, as text; what does not apply is empty."""

    metric: str
    arm: str
    is_floor: bool = False
    median: str = ""
    spread: str = ""
    unit: str = ""
    ratio: str = ""
    bounds: str = ""
    base: str = ""
    verdict: str = ""
    floor: str = ""
    own: str = ""
    runs: str = ""


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def between(low, high):
    """An interval, with as many digits as it takes to see that it is one."""
    digits = 2 if high - low >= 0.02 else 3
    return f"{low:.{digits}f}-{high:.{digits}f}"


def times(value):
    return f"{value:,.0f}x" if value >= 1000 else f"{value:.2f}x"


def own_cost(metric, measured, harness):
    """What a measurement without anything in it comes to: by the program itself, or a pair of timestamps of this machine."""
    overhead = measured.get("overhead")
    if overhead is None and metric["unit"] in TIMES and re.search(r"\bp\d", metric["name"]) and harness.get("empty_sample_ns"):
        overhead = harness["empty_sample_ns"] / TIMES[metric["unit"]]
    return "" if overhead is None else f"{overhead:.2g}" if overhead < 10 else number(overhead)


def percentile_of(metric):
    """(what it is of, 0.999) of the metric "connect p99.9"; None: it is no percentile."""
    found = re.fullmatch(r"(?:(.+) )?p(\d+(?:\.\d+)?)", metric["name"])
    return found and (found[1] or "latency", round(float(found[2]) / 100, 9))


def of_all_runs(metric, arm, distributions):
    """The percentile that the metric is called after, of all runs' samples; None: they do not carry it, or it is none."""
    about = percentile_of(metric)
    one = about and distributions.get(about[0], {}).get(arm)
    value = histogram.percentile(one, about[1]) if one else None
    return None if value is None else value / TIMES[metric["unit"]]


def is_percentile_of(metric, arm, distributions):
    """Whether this is a percentile of what the arm has measured, resolved or not."""
    about = percentile_of(metric)
    return about is not None and (about[0] not in distributions or arm in distributions[about[0]])


def is_resolved(metric, arm, distributions):
    measured = metric["arms"][arm]
    if not arithmetic.present(measured["values"]) and of_all_runs(metric, arm, distributions) is None:
        return False
    about, limit = percentile_of(metric), measured.get("floor") or measured["base"]
    if about is None or about[1] < BESIDE_THE_LIMIT or limit in (None, arm):
        return True
    return is_resolved(metric, limit, distributions)


def unresolved_line(metric, distributions):
    """Of a percentile that no arm has."""
    kind, fraction = percentile_of(metric)
    arms = distributions.get(kind, {})
    limits = [one for arm, one in arms.items() if arm in metric["arms"] and metric["arms"][arm].get("floor") in (None, arm)]
    most = max(map(histogram.total, limits or arms.values()), default=0)
    return f"{metric['name']}: {NOT_RESOLVED} of any arm: it takes {histogram.needed(fraction):,} samples, of all runs together; " \
           f"there are {most:,}"


def row_of(metric, arm, harness, distributions):
    measured = metric["arms"][arm]
    values = arithmetic.present(measured["values"])
    row = Row(metric["name"], arm, measured.get("floor") == arm, unit=metric["unit"], runs=str(len(values)))
    if not is_resolved(metric, arm, distributions):
        row.median, row.runs = NOT_RESOLVED, "0"
        return row
    if not values:
        value = of_all_runs(metric, arm, distributions)
        if value is not None:
            row.median, row.runs, row.own = number(value), "all", own_cost(metric, measured, harness)
        return row
    middle, spread = arithmetic.median_and_spread(values)
    row.median, row.spread = number(middle), number(spread) if len(values) > 1 else ""
    row.own = own_cost(metric, measured, harness)
    relative = arithmetic.ratios(metric, arm)
    if relative:
        bounds = arithmetic.interval(relative)
        row.ratio, row.base = times(statistics.median(relative)), measured["base"]
        row.bounds = between(*bounds) if bounds else ""
        row.verdict = arithmetic.verdict(metric, arm)
    above = arithmetic.times_the_floor(metric, arm)
    row.floor = "floor" if row.is_floor else times(statistics.median(above)) if above else ""
    return row


def rows(scenario, harness):
    """One for each metric and each arm that was measured at all; the others stand in the notes. Of what does not apply to an arm
    (the rate of one that pauses), and of a percentile that no arm has, there is none."""
    without = {arm for arm in arms_of(scenario)
               if not any(arithmetic.present(metric["arms"][arm]["values"]) for metric in scenario["metrics"])}
    distributions = scenario.get("distributions", {})
    return [row_of(metric, arm, harness, distributions) for metric in scenario["metrics"] if somebody_has(metric, distributions)
            for arm in metric["arms"] if arm not in without and (
                is_resolved(metric, arm, distributions) or is_percentile_of(metric, arm, distributions))]


def no_value_line(metric):
    return f"{metric['name']}: no arm has a value" + (f": {metric['without']}" if metric.get("without") else "")


def somebody_has(metric, distributions):
    return any(is_resolved(metric, arm, distributions) for arm in metric["arms"])


def unresolved_lines(scenario):
    """Of the metrics that no arm has, where any was measured."""
    distributions = scenario.get("distributions", {})
    missing = [metric for metric in scenario["metrics"] if not somebody_has(metric, distributions)]
    if len(missing) == len(scenario["metrics"]):
        return []  # the notes say why
    return [unresolved_line(metric, distributions) if percentile_of(metric) else no_value_line(metric)
            for metric in missing]


def arms_of(scenario):
    names = []
    for metric in scenario["metrics"]:
        names += [arm for arm in metric["arms"] if arm not in names]
    return names


def notes(scenario):
    """[(line, last lines)]: why arms have no values, or not all; those with the same reason together."""
    arms = {}
    for arm, about in scenario["notes"].items():
        arms.setdefault((about["state"], about["why"], tuple(about.get("last_lines", []))), []).append(arm)
    return [(f"{', '.join(several)}: {state}: {why}", list(lines)) for (state, why, lines), several in arms.items()]


def precision_line(scenario):
    """What came of the precision that was asked for; "" without one."""
    about = scenario.get("precision")
    if not about:
        return ""
    asked = f"{about['asked'] * 100:g}%"
    if about["reached"] is None:
        return f"precision: not every ratio of \"{about['metric']}\" had enough runs; {asked} was asked for: not reached"
    reached = f"the widest interval of a ratio of \"{about['metric']}\" is {about['reached'] * 100:.1f}% of it"
    met = "" if about["reached"] <= about["asked"] else ": not reached"
    return f"precision: {reached}, {asked} was asked for{met}"


def heading(scenario):
    return f"{scenario['name']}: {scenario['title']} ({scenario['runs']} interleaved runs)"


def table(rows_of_cells, right):
    """Lines of aligned columns; `right` are the indexes of those that are aligned to the right."""
    widths = [max(len(row[i]) for row in rows_of_cells) for i in range(len(rows_of_cells[0]))]
    lines = []
    for row in rows_of_cells:
        cells = [cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


HEAD = ["metric", "arm", "median", "+/-", "unit", "ratio", "95%", "of", "verdict", "x floor", "own", "runs"]
RIGHT = {2, 3, 5, 6, 9, 10, 11}


def cells(row):
    return [row.metric, row.arm, row.median, row.spread, row.unit, row.ratio, row.bounds, row.base, row.verdict, row.floor,
            row.own, row.runs]


def remarks(scenario):
    """What has to be said below a scenario's table, one line each."""
    return [line for line, _ in notes(scenario)] + closing_lines(scenario)


def closing_lines(scenario):
    return unresolved_lines(scenario) + list(filter(None, [precision_line(scenario)]))


def long_table(scenario, harness):
    """One line per metric and arm."""
    measured = rows(scenario, harness)
    return (table([HEAD, *map(cells, measured)], RIGHT) if measured else []) + remarks(scenario)


def wide_table(scenario):
    """One line per arm, one column per metric: for people who want to see it at a glance."""
    lines = [[""] + [f"{metric['name']} ({metric['unit']})" for metric in scenario["metrics"]]]
    for arm in arms_of(scenario):
        lines.append([arm] + [wide_cell(metric, arm) for metric in scenario["metrics"]])
    return table(lines, set(range(1, len(lines[0])))) + remarks(scenario)


def wide_cell(metric, arm):
    values = arithmetic.present(metric["arms"].get(arm, {"values": []})["values"])
    if not values:
        return "-"
    relative = arithmetic.ratios(metric, arm)
    ratio = f"{statistics.median(relative):.2f}x" if relative else ""
    return f"{number(statistics.median(values))} {ratio:>7}"


def incomplete(result):
    """The line that says that this is not all; "" if it is."""
    if result.get("complete", True):
        return ""
    by = result.get("stopped_by") or "somebody"
    why = f"stopped by {by}" if " " not in by else by  # a signal's name, or a sentence of the stage's
    return f"INCOMPLETE: {why}; this is what was measured until then"


def facts(result):
    """[(name, value)] of what one must know to read the figures."""
    harness = result.get("harness", {})
    own = [("harness", f"a timestamp takes {harness['timestamp_ns']:.0f} ns, a measurement of nothing "
            f"{harness['empty_sample_ns']:.0f} ns")] if harness else []
    how = [(name, result[name]) for name in ("command", "started") if name in result]
    return [*how, *result["environment"].items(), *own, *(("warning", text) for text in result.get("warnings", []))]


def text(result, wide=False):
    lines = list(filter(None, [incomplete(result)])) + [f"{name}: {value}" for name, value in facts(result)]
    for scenario in result["scenarios"]:
        lines += ["", heading(scenario), ""]
        lines += wide_table(scenario) if wide else long_table(scenario, result.get("harness", {}))
    return "\n".join(lines if wide else lines + ["", CAPTION])


def markdown_cell(words):
    return words.replace("|", "\\|")


def markdown(result, pictures):
    """report.md. `pictures`: {scenario's name: [(file's name, what it shows)]}."""
    lines = ["# shunt bench", ""]
    if incomplete(result):
        lines += [f"**{incomplete(result)}**", ""]
    lines += [f"- {name}: {value}" for name, value in facts(result)]
    lines += ["", CAPTION]
    for scenario in result["scenarios"]:
        lines += ["", f"## {heading(scenario)}", "", "| " + " | ".join(HEAD) + " |",
                  "|" + "|".join("---:" if i in RIGHT else "---" for i in range(len(HEAD))) + "|"]
        lines += ["| " + " | ".join(map(markdown_cell, cells(row))) + " |" for row in rows(scenario, result.get("harness", {}))]
        for line, said in notes(scenario):
            lines += ["", f"- {line}", *([""] if said else []), *(f"      {one}" for one in said)]
        for line in closing_lines(scenario):
            lines += ["", line]
        for name, shows in pictures.get(scenario["name"], []):
            lines += ["", f"![{shows}]({name})"]
    return "\n".join(lines) + "\n"
