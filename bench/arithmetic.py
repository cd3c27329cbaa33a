# SPDX-License-Identifier: Apache-2.0
"""What values of several runs say: medians, their spread, ratios within the same run, and how sure one may be of them.

Ratios are taken run by run, because the machine of one run is not that of the next. An interval is the bootstrap's for the
median. Of a median its distribution is known without drawing: the median of n values drawn from n is at most the k-th
smallest if more than half of the draws are, each with the chance k/n. From few runs the bootstrap's interval holds less
often than it says (88% instead of 95% for 7), so it is widened to the ranks for which the sign test vouches, whatever the
values' distribution is. Below six runs there are no such ranks, and therefore no interval.
"""

import functools
import math
import statistics

CONFIDENCE = 0.95
FEWEST_RUNS = 6


def present(values):
    return [value for value in values if value is not None]


def share(text):
    """0.05 of "5%" and of "0.05". Raises ValueError for what is no finite number from 0 on, and for "5": that is 500%."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 <= value < (math.inf if text.endswith("%") else 1):
        raise ValueError(text)
    return value


def median_and_spread(values):
    """The median and the median absolute deviation from it."""
    middle = statistics.median(values)
    return middle, statistics.median(abs(value - middle) for value in values)


def chance_of_at_least(successes, tries, chance):
    """That as many of `tries` come out well, each with that chance."""
    if chance >= 1:
        return 1.0
    logarithms = (math.lgamma(tries + 1) - math.lgamma(i + 1) - math.lgamma(tries - i + 1) + i * math.log(chance) +
                  (tries - i) * math.log(1 - chance) for i in range(successes, tries + 1))
    return sum(map(math.exp, logarithms))


@functools.lru_cache(maxsize=None)
def ranks(count):
    """(lowest, highest) rank, from 0, between which the median of what `count` values are a sample of lies."""
    tail = (1 - CONFIDENCE) / 2
    # With an even number the median lies between two draws; the lower of them is the more careful one here.
    needed = (count + 1) // 2
    bootstrap = next(k for k in range(1, count + 1) if chance_of_at_least(needed, count, k / count) >= tail)
    sign = max((k for k in range(1, count // 2 + 1) if 1 - chance_of_at_least(k, count, 0.5) <= tail), default=1)
    lowest = min(bootstrap, sign) - 1
    return lowest, count - 1 - lowest


def interval(values):
    """(low, high): the median's 95% interval; None: these are too few."""
    if len(values) < FEWEST_RUNS:
        return None
    low, high = ranks(len(values))
    ordered = sorted(values)
    return ordered[low], ordered[high]


def width(values):
    """The interval's width as a part of the median; None: too few values, or a median of nothing."""
    bounds, middle = interval(values), statistics.median(values) if values else 0
    return (bounds[1] - bounds[0]) / abs(middle) if bounds and middle else None


def paired(metric, arm, other):
    """arm's value / other's value for each run that has both."""
    if other is None or other not in metric["arms"] or arm not in metric["arms"]:
        return []
    pairs = zip(metric["arms"][arm]["values"], metric["arms"][other]["values"])
    return [mine / theirs for mine, theirs in pairs if mine is not None and theirs]


def ratios(metric, arm):
    """To the arm's base."""
    return paired(metric, arm, metric["arms"][arm]["base"])


def times_the_floor(metric, arm):
    """How many times dearer than the physical limit, run by run: above 1 is worse, whichever way the metric goes."""
    relative = paired(metric, arm, metric["arms"][arm].get("floor"))
    return [1 / ratio for ratio in relative if ratio] if metric["better"] == "higher" else relative


SAME, BETTER, WORSE, UNKNOWN = "no difference", "better", "worse", "too few runs"
CANNOT_TELL = "cannot tell"  # the interval reaches farther than what somebody has called the same


def verdict(metric, arm):
    """What the interval of the arm's ratio to its base says."""
    bounds = interval(ratios(metric, arm))
    if bounds is None:
        return UNKNOWN
    if bounds[0] <= 1 <= bounds[1]:
        return SAME
    return BETTER if (bounds[1] < 1) == (metric["better"] == "lower") else WORSE


def quotient(before, after):
    """(middle, low, high) of median(after) / median(before), two independent sets of positive values; None: too few.

    The logarithms' intervals are put together as those of a difference (MOVER: the distances to the bounds add up as
    squares do); that keeps their confidence without assuming a distribution.
    """
    if not before or not after or min(before) <= 0 or min(after) <= 0:
        return None
    bounds = interval(before), interval(after)
    if None in bounds:
        return None
    middles = [math.log(statistics.median(values)) for values in (before, after)]
    (low_a, high_a), (low_b, high_b) = [[math.log(bound) for bound in pair] for pair in bounds]
    difference = middles[1] - middles[0]
    below = math.hypot(middles[1] - low_b, high_a - middles[0])
    above = math.hypot(high_b - middles[1], middles[0] - low_a)
    return math.exp(difference), math.exp(difference - below), math.exp(difference + above)
