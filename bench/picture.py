# SPDX-License-Identifier: Apache-2.0
"""Draws a benchmark's values (report.py says what they look like) as one SVG picture that needs nothing else: a panel for
each metric, a bar for each arm's median, a line for the median absolute deviation on either side of it."""

from xml.sax.saxutils import escape

import report

# Pixels.
WIDTH, MARGIN, NAMES, NUMBERS = 760, 16, 150, 120
BAR, GAP, TITLE = 16, 6, 30
COLOURS = {True: "#2f6f9f", False: "#b9c3cb"}  # what is ours, and what it is compared with


def is_ours(arm):
    return arm.startswith(("shunt", "services")) and "+" not in arm  # "shunt+haproxy": a proxy that shunt leads to


def text(x, y, words, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>')


def bar(y, arm, values, scale, left):
    middle, spread = report.median_and_spread(values)
    length = middle * scale
    centre = y + BAR / 2
    low, high = left + max(middle - spread, 0) * scale, left + (middle + spread) * scale
    return [text(left - 8, y + BAR - 4, arm, "end"),
            f'<rect x="{left}" y="{y}" width="{max(length, 1):.1f}" height="{BAR}" fill="{COLOURS[is_ours(arm)]}"/>',
            f'<path d="M{low:.1f} {centre}H{high:.1f}M{low:.1f} {centre - 4}V{centre + 4}M{high:.1f} {centre - 4}V{centre + 4}" '
            'stroke="#222" fill="none"/>',
            text(high + 6, y + BAR - 4, report.number(middle))]


def panel(y, metric):
    """(shapes, the y below them)."""
    arms = [(arm, report.present(measured["values"])) for arm, measured in metric["arms"].items()]
    arms = [(arm, values) for arm, values in arms if values]
    if not arms:
        return [], y
    better = {"lower": "less is better", "higher": "more is better"}[metric["better"]]
    unit = " per second" if metric["unit"] == "/s" else f", {metric['unit']}"
    shapes = [text(MARGIN, y + 18, metric["name"] + unit, weight="bold"), text(WIDTH - MARGIN, y + 18, better, "end")]
    y += TITLE
    left = MARGIN + NAMES
    most = max(sum(report.median_and_spread(values)) for _, values in arms)
    scale = (WIDTH - left - NUMBERS) / (most or 1)
    for arm, values in arms:
        shapes += bar(y, arm, values, scale, left)
        y += BAR + GAP
    return shapes, y + GAP


def svg(result):
    shapes, y = [], MARGIN
    for scenario in result["scenarios"]:
        shapes.append(text(MARGIN, y + 14, f"{scenario['title']}, {scenario['runs']} interleaved runs", weight="bold"))
        y += TITLE
        for metric in scenario["metrics"]:
            more, y = panel(y, metric)
            shapes += more
    about = ", ".join(f"{name}: {value}" for name, value in result["environment"].items())
    shapes.append(text(MARGIN, y + 14, about))
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 30}" font-family="sans-serif" '
                      'font-size="12">', '<rect width="100%" height="100%" fill="#fff"/>', *shapes, "</svg>\n"])
