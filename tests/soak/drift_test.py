#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The judgement of a soak, on series of which one knows what they are."""

import unittest

import drift

ANY = drift.Bound(16, 0.0)


def series(value, seconds=400):
    return [(1000.0 + at, value(at)) for at in range(0, seconds + 1, 4)]


class Drift(unittest.TestCase):
    def test_what_stays_does_not_grow(self):
        row = drift.row("descriptors", "", series(lambda at: 100), ANY)
        self.assertEqual((row.first, row.last, row.drift, row.grew), (100, 100, 0, False))

    def test_a_leak_grows_and_its_rate_is_told_per_hour(self):
        # One in four seconds: the middles of the quarters are 300 s apart.
        row = drift.row("descriptors", "", series(lambda at: 100 + at / 4), ANY)
        self.assertAlmostEqual(row.last - row.first, 75)
        self.assertAlmostEqual(row.drift, 900)
        self.assertTrue(row.grew)

    def test_peaks_are_no_growth(self):
        row = drift.row("descriptors", "", series(lambda at: 5000 if at % 12 == 8 else 100), ANY)
        self.assertFalse(row.grew)

    def test_what_shrinks_does_not_grow(self):
        self.assertFalse(drift.row("descriptors", "", series(lambda at: 1000 - at), ANY).grew)

    def test_growth_up_to_the_bound_is_allowed(self):
        step = lambda size: series(lambda at: 100 + (size if at > 200 else 0))  # noqa: E731
        self.assertFalse(drift.row("descriptors", "", step(16), ANY).grew)
        self.assertTrue(drift.row("descriptors", "", step(17), ANY).grew)

    def test_the_larger_of_two_bounds_holds(self):
        bound = drift.Bound(16, 0.5)
        step = lambda size: series(lambda at: 100 + (size if at > 200 else 0))  # noqa: E731
        self.assertFalse(drift.row("latency", "us", step(50), bound).grew)
        self.assertTrue(drift.row("latency", "us", step(51), bound).grew)

    def test_one_sample_is_no_growth(self):
        self.assertFalse(drift.row("descriptors", "", [(1.0, 7)], ANY).grew)

    def test_the_table_names_what_grew(self):
        rows = [drift.row("descriptors", "", series(lambda at: 100 + at), ANY),
                drift.row("resident", "KiB", series(lambda at: 100), ANY)]
        lines = drift.table(rows).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertTrue(lines[1].startswith("descriptors ") and lines[1].endswith("GREW"))
        self.assertTrue(lines[2].startswith("resident (KiB) ") and lines[2].endswith("ok"))


if __name__ == "__main__":
    unittest.main()
