# SPDX-License-Identifier: Apache-2.0
"""Reads the log-linear histograms of the measuring programs (bench/histogram.h) and draws percentiles from them.

{"sub_bits": B, "counts": [[index, count], ...]}, in nanoseconds: a value below 2^B is its own index; above, each doubling has
2^B indexes, so that an index says what lies within 1/2^B of a value. Of the tail only what the samples carry is told.
"""


def needed(fraction):
    """How many samples carry it: ten lie beyond up to p99; farther out, where one burst makes many of them, a hundred."""
    return 1 if fraction <= 0.5 else round((10 if fraction <= 0.99 else 100) / (1 - fraction))


def carried(fraction, samples):
    return samples > 0 and (fraction <= 0.5 or samples * (1 - fraction) >= (10 if fraction <= 0.99 else 100) - 1e-6)


def value_of(index, sub_bits):
    """The middle of what the index stands for."""
    octave, place = divmod(index, 1 << sub_bits)
    if octave == 0:
        return index
    size = 1 << (octave - 1)
    return ((1 << sub_bits) + place) * size + (size - 1) / 2


def total(histogram):
    return sum(count for _, count in histogram["counts"])


def percentile(histogram, fraction):
    """The value that `fraction` of the samples do not exceed; None: too few samples for that."""
    samples = total(histogram)
    if not carried(fraction, samples):
        return None
    seen = 0
    for index, count in sorted(histogram["counts"]):
        seen += count
        if seen >= samples * fraction - 1e-6:
            return value_of(index, histogram["sub_bits"])
    return None


def curve(histogram):
    """[(fraction, value)], rising, as far as the samples carry it: for a picture."""
    samples = total(histogram)
    points, seen = [], 0
    for index, count in sorted(histogram["counts"]):
        seen += count
        if not carried(seen / samples, samples):
            break
        points.append((seen / samples, value_of(index, histogram["sub_bits"])))
    return points
