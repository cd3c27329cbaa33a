#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of what the harness concludes from values: on machines that drift and make noise, and on this one, with the programs in
the directory BENCH_BUILD. All chance comes from fixed seeds but this machine's."""

import json
import math
import os
import random
import statistics
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
import arithmetic  # noqa: E402
import course  # noqa: E402


def most_failures(tries, chance, beyond=0.001):
    """So many of `tries` may fail by chance; more happen once in a thousand times."""
    return next(k for k in range(tries + 1) if arithmetic.chance_of_at_least(k + 1, tries, chance) < beyond)


class Twice:
    """A scenario of two arms and one metric."""

    title, as_root = "two candidates", False
    arms, metrics = ["first", "second"], {"took": ("us", "lower")}

    def base(self, arm):
        return "first" if arm == "second" else None

    def floor(self, arm):
        return "first"


class Machine:
    """Gets slower all the time, in steps too, and is disturbed now and then. `dearer` is what "second" costs more."""

    def __init__(self, seed, dearer=1.0, noise=0.03, drift=0.01):
        self.chance, self.dearer, self.noise, self.drift = random.Random(seed), dearer, noise, drift
        self.state = 0.0

    def measure(self, _, arm):
        self.state += self.drift + self.chance.gauss(0, 0.02)
        disturbed = self.chance.expovariate(2) if self.chance.random() < 0.1 else 0
        took = 50 * math.exp(self.state + self.chance.gauss(0, self.noise) + disturbed)
        return {"state": course.MEASURED, "values": {"took": took * (self.dearer if arm == "second" else 1)}}


def metric_of(measure, runs):
    way = course.Course(course.Plan(runs), lambda *_: None)
    way.run([("twice", Twice(), Twice.arms)], measure)
    return way.results()[0]["metrics"][0]


class Noise(unittest.TestCase):
    def verdicts(self, runs, machines):
        return [arithmetic.verdict(metric_of(machine.measure, runs), "second") for machine in machines]

    def test_two_identical_candidates_are_no_difference_as_often_as_promised(self):
        for runs in (7, 21):
            said = self.verdicts(runs, [Machine(seed) for seed in range(400)])
            different = len(said) - said.count(arithmetic.SAME)
            self.assertLessEqual(different, most_failures(400, 0.05), f"{runs} runs")

    def test_a_machine_that_gets_slower_steadily_is_not_the_second_ones_fault(self):
        said = self.verdicts(22, [Machine(seed, noise=0.002, drift=0.03) for seed in range(100)])
        self.assertLessEqual(len(said) - said.count(arithmetic.SAME), most_failures(100, 0.05))

    def test_ten_percent_are_found(self):
        for dearer, verdict in ((1.1, arithmetic.WORSE), (1 / 1.1, arithmetic.BETTER)):
            said = self.verdicts(21, [Machine(seed, dearer) for seed in range(200)])
            self.assertGreater(said.count(verdict), 190)

    def test_few_runs_find_nothing(self):
        self.assertEqual(self.verdicts(5, [Machine(1, 10)]), [arithmetic.UNKNOWN])


class Intervals(unittest.TestCase):
    def test_they_hold_the_true_median_as_often_as_promised(self):
        # Skewed, with a long tail: as durations are. The median of exp(x) is exp(median of x) = 1.
        for count in (6, 7, 8, 9, 12, 21, 40, 61):
            chance, missed = random.Random(count), 0
            for _ in range(1500):
                low, high = arithmetic.interval([math.exp(chance.gauss(0, 1)) for _ in range(count)])
                missed += not low <= 1 <= high
            self.assertLessEqual(missed, most_failures(1500, 0.05), f"{count} runs")

    def test_they_are_not_wider_than_that_takes(self):
        # The bootstrap by drawing: ours is at most one rank wider on each side.
        for count in (9, 12, 21, 40):
            values = list(range(count))
            chance = random.Random(2)
            medians = sorted(statistics.median(chance.choices(values, k=count)) for _ in range(4000))
            low, high = arithmetic.interval(values)
            self.assertTrue(medians[100] - 1.5 <= low <= medians[100] + 0.5, f"{low} and {medians[100]} of {count}")
            self.assertTrue(medians[-101] - 0.5 <= high <= medians[-101] + 1.5, f"{high} and {medians[-101]} of {count}")

    def test_they_narrow_with_more_runs(self):
        chance = random.Random(3)
        widths = [arithmetic.width([10 + chance.random() for _ in range(count)]) for count in (7, 21, 101)]
        self.assertEqual(widths, sorted(widths, reverse=True))

    def test_fewer_than_six_values_have_none(self):
        self.assertIsNone(arithmetic.interval([1, 2, 3, 4, 5]))
        self.assertEqual(arithmetic.interval([6, 1, 2, 3, 5, 4]), (1, 6))

    def test_the_quotient_of_two_medians_is_held_as_often_as_promised(self):
        for before, after in ((7, 7), (7, 21), (21, 21)):
            chance, missed = random.Random(before + after), 0
            for _ in range(1000):
                sets = [[scale * math.exp(chance.gauss(0, 0.2)) for _ in range(count)]
                        for scale, count in ((3, before), (6, after))]
                _, low, high = arithmetic.quotient(*sets)
                missed += not low <= 2 <= high
            self.assertLessEqual(missed, most_failures(1000, 0.05), f"{before} and {after} runs")

    def test_a_quotient_needs_positive_values_and_enough_of_them(self):
        self.assertIsNone(arithmetic.quotient([1] * 7, [0] * 7))
        self.assertIsNone(arithmetic.quotient([1] * 7, [1] * 5))
        for value in arithmetic.quotient([2] * 7, [3] * 7):
            self.assertAlmostEqual(value, 1.5)


class Shares(unittest.TestCase):
    def test_a_share_is_of_a_hundred_or_of_one(self):
        self.assertEqual([arithmetic.share(text) for text in ("5%", "0.05", "0", "400%")], [0.05, 0.05, 0, 4])

    def test_what_is_none_is_refused_and_so_is_a_bare_number_that_was_meant_as_percent(self):
        for text in ("5", "1", "-1%", "nan", "nan%", "inf%", "5%%", "%", "", "much"):
            with self.assertRaises(ValueError, msg=text):
                arithmetic.share(text)


class Ratios(unittest.TestCase):
    def metric(self, first, second, better="lower"):
        return {"name": "m", "unit": "us", "better": better,
                "arms": {"first": {"base": None, "floor": "first", "values": first},
                         "second": {"base": "first", "floor": "first", "values": second}}}

    def test_they_pair_the_values_of_the_same_run(self):
        # Each run of a drifting machine doubles the price; the ratio stays.
        self.assertEqual(arithmetic.ratios(self.metric([10, 20, 40], [30, 60, 120]), "second"), [3, 3, 3])

    def test_a_run_that_lacks_one_side_has_none(self):
        self.assertEqual(arithmetic.ratios(self.metric([10, None, 40], [20, 60, None]), "second"), [2])

    def test_times_the_floor_is_dearer_above_one_whichever_way_the_metric_goes(self):
        self.assertEqual(arithmetic.times_the_floor(self.metric([10], [20]), "second"), [2])
        self.assertEqual(arithmetic.times_the_floor(self.metric([10], [5], "higher"), "second"), [2])

    def test_the_spread_is_the_median_deviation_and_ignores_one_outlier(self):
        self.assertEqual(arithmetic.median_and_spread([10, 11, 12, 13, 1000]), (12, 1))


class ThisMachine(unittest.TestCase):
    def measure(self, _, arm):
        del arm  # both are the same
        program = os.path.join(os.environ["BENCH_BUILD"], "floor")
        run = subprocess.run([program, "--target-only", "--warmup", "100", "--count", "2000"], capture_output=True, text=True,
                             check=True, timeout=60)
        return {"state": course.MEASURED, "values": {"took": json.loads(run.stdout)["mean_ns"]}}

    def test_the_same_program_twice_is_no_difference_in_twenty_of_twenty_as_far_as_95_percent_allow(self):
        said = [arithmetic.verdict(metric_of(self.measure, 7), "second") for _ in range(20)]
        self.assertLessEqual(20 - said.count(arithmetic.SAME), most_failures(20, 0.05))


if __name__ == "__main__":
    unittest.main()
