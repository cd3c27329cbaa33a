# SPDX-License-Identifier: Apache-2.0
"""Draws a scenario's values (docs/bench-results.md) as SVG that needs nothing else, alone or inside a page.

A panel for each metric: a bar for each arm's median, a line for the median absolute deviation on either side of it, and the
ratio to the arm's base. A panel for each distribution: what share of the samples took at most how long, the rare ones
stretched (each step to the right is a tenth of the samples that are left), both axes logarithmic. One column, so that it can
be read on a phone; colours follow the reader's light or dark preference.
"""

import math
import statistics
from xml.sax.saxutils import escape

import arithmetic
import histogram
import report
from peers import peer_of

# Pixels.
WIDTH, MARGIN, NAMES, NUMBERS, RATIOS = 640, 12, 150, 78, 70
ROW, BAR, TITLE, GAP = 24, 14, 32, 14
PLOT_HEIGHT, AXIS = 260, 56

CURVES = ["#2f7fb8", "#c2571a", "#3a8f3f", "#9452b8", "#b83a5e", "#8a7a1f", "#3a8f8f", "#6b6f76"]

STYLE = """
.sb-ground { fill: #ffffff } .sb-panel { fill: #f4f6f8 } .sb-grid { stroke: #d5dae0; fill: none }
svg.sb text { font-family: system-ui, -apple-system, 'DejaVu Sans', sans-serif; font-size: 13px; fill: #1f2328 }
svg.sb .sb-bold { font-weight: 600 } svg.sb .sb-soft { fill: #59636e; font-size: 12px }
.sb-peer { fill: #a9b3bd } .sb-floor { fill: #6d7883 } .sb-ours { fill: #1f7a9c } .sb-spread { stroke: #1f2328; fill: none }
@media (prefers-color-scheme: dark) {
  .sb-ground { fill: #0d1117 } .sb-panel { fill: #161b22 } .sb-grid { stroke: #30363d }
  svg.sb text { fill: #e6edf3 } svg.sb .sb-soft { fill: #9198a1 }
  .sb-peer { fill: #57606a } .sb-floor { fill: #8b949e } .sb-ours { fill: #3aa5cc } .sb-spread { stroke: #e6edf3 }
}"""


def text(x, y, words, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def fitted(words, width):
    """Shortened to `width` pixels: a letter is at most about 7 wide on average."""
    most = int(width / 6.8)
    return words if len(words) <= most else words[: most - 1] + "\u2026"


def is_ours(arm):
    return arm.startswith(("shunt", "services")) and peer_of(arm) is None  # "shunt+haproxy": a proxy that shunt leads to


def kind_of(arm, measured):
    return "sb-floor" if measured.get("floor") == arm or arm == "native" else "sb-ours" if is_ours(arm) else "sb-peer"


def bar(y, metric, arm, scale):
    measured = metric["arms"][arm]
    middle, spread = arithmetic.median_and_spread(arithmetic.present(measured["values"]))
    left, centre = MARGIN + NAMES, y + BAR / 2
    low, high = left + max(middle - spread, 0) * scale, left + (middle + spread) * scale
    shapes = [text(left - 8, y + BAR - 2, fitted(arm, NAMES - 16), "", "end"),
              f'<rect x="{left}" y="{y}" width="{max(middle * scale, 1):.1f}" height="{BAR}" rx="2" '
              f'class="{kind_of(arm, measured)}"/>',
              f'<path d="M{low:.1f} {centre}H{high:.1f}M{low:.1f} {centre - 4}V{centre + 4}M{high:.1f} {centre - 4}'
              f'V{centre + 4}" '
              'class="sb-spread"/>',
              text(high + 6, y + BAR - 2, report.number(middle))]
    relative = arithmetic.ratios(metric, arm)
    if relative:
        words = "same" if arithmetic.verdict(metric, arm) == arithmetic.SAME else ""
        words = words or report.times(statistics.median(relative)).replace("x", "\u00d7")
        shapes.append(text(WIDTH - MARGIN - 8, y + BAR - 2, words, "sb-soft", "end"))
    return shapes


def frame(y, height, title, remark):
    return [f'<rect x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{height}" rx="6" class="sb-panel"/>',
            text(MARGIN + 10, y + 20, title, "sb-bold"), text(WIDTH - MARGIN - 8, y + 20, remark, "sb-soft", "end")]


def bars(y, metric):
    """A metric's panel: (shapes, the y below them)."""
    arms = [arm for arm, measured in metric["arms"].items() if arithmetic.present(measured["values"])]
    if not arms:
        return [], y
    sense = {"lower": "less is better", "higher": "more is better"}[metric["better"]]
    unit = " per second" if metric["unit"] == "/s" else f", {metric['unit']}" if metric["unit"] else ""
    height = TITLE + len(arms) * ROW + 4
    shapes = frame(y, height, metric["name"] + unit, sense)
    most = max(sum(arithmetic.median_and_spread(arithmetic.present(metric["arms"][arm]["values"]))) for arm in arms)
    scale = (WIDTH - 2 * MARGIN - NAMES - NUMBERS - RATIOS) / (most or 1)
    for place, arm in enumerate(arms):
        shapes += bar(y + TITLE + place * ROW, metric, arm, scale)
    return shapes, y + height + GAP


def duration(nanoseconds):
    """1, 10, 100 of a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:g} {unit}"
    return f"{nanoseconds:g} ns"


def rarity(fraction):
    """0, 1, 2 ... for 0, 90%, 99% ..."""
    return -math.log10(1 - fraction)


def grid(x_of, y_of, nines, low, high, top, bottom):
    shapes = []
    for step in range(nines + 1):
        share = "0%" if step == 0 else f"{100 - 100 / 10**step:.{max(step - 2, 0)}f}%"
        shapes += [f'<path d="M{x_of(step):.1f} {top}V{bottom}" class="sb-grid"/>',
                   text(x_of(step), bottom + 16, share, "sb-soft", "middle")]
    for power in range(low, high + 1):
        shapes += [f'<path d="M{x_of(0):.1f} {y_of(power):.1f}H{x_of(nines):.1f}" class="sb-grid"/>',
                   text(x_of(0) - 6, y_of(power) + 4, duration(10**power), "sb-soft", "end")]
    return shapes


def legend(y, arms):
    """The arms' names in their colours: (shapes, the y below them)."""
    shapes, x = [], MARGIN + 10
    for place, arm in enumerate(arms):
        width = 26 + 7.4 * len(arm)
        if x + width > WIDTH - MARGIN:
            x, y = MARGIN + 10, y + 18
        shapes += [f'<rect x="{x:.1f}" y="{y - 9}" width="12" height="4" fill="{CURVES[place % len(CURVES)]}"/>',
                   text(x + 16, y - 2, arm, "sb-soft")]
        x += width
    return shapes, y + 12


def curves(y, name, arms):
    """A distribution's panel: (shapes, the y below them). `arms`: {arm: histogram}."""
    lines = {arm: [(rarity(share), math.log10(max(value, 1))) for share, value in histogram.curve(one)]
             for arm, one in arms.items()}
    lines = {arm: points for arm, points in lines.items() if len(points) > 1}
    if not lines:
        return [], y
    values = [value for points in lines.values() for _, value in points]
    nines = math.ceil(max(points[-1][0] for points in lines.values()))
    low, high = math.floor(min(values)), max(math.ceil(max(values)), math.floor(min(values)) + 1)
    names, below = legend(y + TITLE + 10, lines)
    top, bottom = below, below + PLOT_HEIGHT
    left, right = MARGIN + AXIS + 8, WIDTH - MARGIN - 24

    def x_of(rare):
        return left + (right - left) * rare / nines

    def y_of(power):
        return bottom - (bottom - top) * (power - low) / (high - low)

    height = bottom + 28 - y
    shapes = frame(y, height, name + ": at most so long", "of so many, all runs together") + names
    shapes += grid(x_of, y_of, nines, low, high, top, bottom)
    for place, points in enumerate(lines.values()):
        path = " ".join(f"{x_of(rare):.1f},{y_of(power):.1f}" for rare, power in thinned(points))
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{CURVES[place % len(CURVES)]}" stroke-width="1.8"/>')
    return shapes, y + height + GAP


def thinned(points, apart=0.004):
    """Without those that lie where the one before lies, as far as a picture can show."""
    kept = points[:1]
    for point in points[1:]:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= apart:
            kept.append(point)
    return kept + points[-1:]


def whole(shapes, height, title):
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" class="sb" viewBox="0 0 {WIDTH} {height}" role="img" '
                      f'aria-label="{escape(title, {chr(34): "&quot;"})}">', f"<style>{STYLE}\n</style>",
                      '<rect width="100%" height="100%" class="sb-ground"/>', *shapes, "</svg>\n"])


def scenario_picture(scenario):
    """The metrics' panels."""
    shapes, y = [text(MARGIN, MARGIN + 12, fitted(f"{scenario['title']}, {scenario['runs']} runs", WIDTH - 2 * MARGIN),
                      "sb-bold")], MARGIN + 26
    for metric in scenario["metrics"]:
        more, y = bars(y, metric)
        shapes += more
    return whole(shapes, y, scenario["title"])


def distribution_picture(scenario):
    """The distributions' panels; None: there are none."""
    shapes, y = [], MARGIN
    for name, arms in scenario.get("distributions", {}).items():
        more, y = curves(y, name, arms)
        shapes += more
    return whole(shapes, y, f"{scenario['title']}: distributions") if shapes else None
