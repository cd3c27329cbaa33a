# SPDX-License-Identifier: Apache-2.0
"""Turns a benchmark's raw values into tables: medians, their spread, and ratios within the same run.

A result is a dict: "environment" {name: text}, and "scenarios": a list of {"name", "title", "runs", "metrics": [{"name",
"unit", "better": "lower"|"higher", "arms": {arm: {"base": arm or None, "values": [number or None, one per run]}}}],
"notes": {arm: why it has no values}}. Ratios are taken run by run, because the machine of one run is not that of the next.
"""

import random
import statistics


def median_and_spread(values):
    """The median and the median absolute deviation from it."""
    middle = statistics.median(values)
    return middle, statistics.median(abs(value - middle) for value in values)


def present(values):
    return [value for value in values if value is not None]


def ratios(metric, arm):
    """value / base's value for each run that has both."""
    base = metric["arms"][arm]["base"]
    if base is None or base not in metric["arms"]:
        return []
    pairs = zip(metric["arms"][arm]["values"], metric["arms"][base]["values"])
    return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]


def interval(values, draws=2000):
    """A 95% bootstrap interval of the median. The seed is fixed: the same values give the same interval."""
    if len(values) < 3:
        return None
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(draws * 0.025)], medians[int(draws * 0.975)]


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(rows, right):
    """Lines of aligned columns; `right` are the indexes of those that are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) if i in right else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def long_table(scenario):
    """One line per metric and arm that has values."""
    rows = [["metric", "arm", "median", "+/-", "unit", "ratio", "95%", "of", "runs"]]
    for metric in scenario["metrics"]:
        for arm, measured in metric["arms"].items():
            values = present(measured["values"])
            if values:
                rows.append(long_row(metric, arm, values))
    lines = table(rows, {2, 3, 5, 6, 8})
    lines += [f"{arm}: {why}" for arm, why in scenario["notes"].items()]
    return lines


def long_row(metric, arm, values):
    middle, spread = median_and_spread(values)
    row = [metric["name"], arm, number(middle), number(spread), metric["unit"]]
    relative = ratios(metric, arm)
    if not relative:
        return row + ["", "", "", str(len(values))]
    bounds = interval(relative)
    shown = f"{bounds[0]:.2f}-{bounds[1]:.2f}" if bounds else ""
    return row + [f"{statistics.median(relative):.2f}x", shown, metric["arms"][arm]["base"], str(len(values))]


def arms_of(scenario):
    names = []
    for metric in scenario["metrics"]:
        names += [arm for arm in metric["arms"] if arm not in names]
    return names


def wide_table(scenario):
    """One line per arm, one column per metric: for people who want to see it at a glance."""
    rows = [[""] + [f"{metric['name']} ({metric['unit']})" for metric in scenario["metrics"]]]
    for arm in arms_of(scenario):
        row = [arm]
        for metric in scenario["metrics"]:
            row.append(wide_cell(metric, arm))
        rows.append(row)
    lines = table(rows, set(range(1, len(rows[0]))))
    lines += [f"{arm}: {why}" for arm, why in scenario["notes"].items()]
    return lines


def wide_cell(metric, arm):
    values = present(metric["arms"].get(arm, {"values": []})["values"])
    if not values:
        return "-"
    relative = ratios(metric, arm)
    ratio = f"{statistics.median(relative):.2f}x" if relative else ""
    return f"{number(statistics.median(values))} {ratio:>7}"


def text(result, wide=False):
    lines = [f"{name}: {value}" for name, value in result["environment"].items()]
    for scenario in result["scenarios"]:
        lines += ["", f"{scenario['title']} ({scenario['runs']} interleaved runs)", ""]
        lines += wide_table(scenario) if wide else long_table(scenario)
    return "\n".join(lines)
