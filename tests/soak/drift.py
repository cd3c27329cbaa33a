# SPDX-License-Identifier: Apache-2.0
"""Does a series of samples grow? The first quarter of a soak against the last, and the slope between."""

import statistics
from typing import NamedTuple


class Bound(NamedTuple):
    """The last quarter's median may be so much more than the first's: the larger of the two."""

    absolute: float
    relative: float  # 0.5: half as much again

    def allowed(self, first):
        return max(self.absolute, self.relative * first)

    def __str__(self):
        relative = f"{self.relative:.0%}" if self.relative else ""
        absolute = f"{self.absolute:g}" if self.absolute or not relative else ""
        return "+" + " or ".join(filter(None, [absolute, relative]))


class Row(NamedTuple):
    """One metric over a soak. Times are in seconds, `drift` is per hour."""

    name: str
    unit: str
    samples: int
    first: float
    last: float
    drift: float
    bound: Bound

    @property
    def grew(self):
        return self.last - self.first > self.bound.allowed(self.first)


def quarters(samples):
    """The values of the first and of the last quarter of the time. `samples` are (seconds, value)."""
    begin, end = samples[0][0], samples[-1][0]
    quarter = (end - begin) / 4
    return ([value for at, value in samples if at <= begin + quarter],
            [value for at, value in samples if at >= end - quarter])


def slope_per_hour(samples):
    """By least squares. One run of a few seconds says little by this; it is for hours."""
    if len({at for at, _ in samples}) < 2:
        return 0.0
    times, values = zip(*samples)
    return statistics.linear_regression(times, values).slope * 3600


def row(name, unit, samples, bound):
    """Of at least one sample."""
    first, last = (statistics.median(values) for values in quarters(samples))
    return Row(name, unit, len(samples), first, last, slope_per_hour(samples), bound)


def table(rows):
    """The rows for people."""
    lines = [("", "first quarter", "last quarter", "per hour", "allowed", "samples", "")]
    for one in rows:
        name = f"{one.name} ({one.unit})" if one.unit else one.name
        lines.append((name, f"{one.first:.1f}", f"{one.last:.1f}", f"{one.drift:+.1f}", str(one.bound),
                      str(one.samples), "GREW" if one.grew else "ok"))
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) if i in (0, 6) else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))).rstrip() for line in lines)
