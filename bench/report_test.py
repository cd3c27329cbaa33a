#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the benchmarks' arithmetic: bench/report.py, and the percentiles of the programs in the directory BENCH_BUILD."""

import json
import os
import subprocess
import sys
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
import picture  # noqa: E402
import report  # noqa: E402


def metric(native, shunt):
    return {"name": "m", "unit": "us", "better": "lower",
            "arms": {"native": {"base": None, "values": native}, "shunt": {"base": "native", "values": shunt}}}


class Arithmetic(unittest.TestCase):
    def test_ratios_pair_the_values_of_the_same_run(self):
        # Each run of a drifting machine doubles the price; the ratio stays.
        self.assertEqual(report.ratios(metric([10, 20, 40], [30, 60, 120]), "shunt"), [3, 3, 3])

    def test_a_run_that_lacks_one_side_has_no_ratio(self):
        self.assertEqual(report.ratios(metric([10, None, 40], [20, 60, None]), "shunt"), [2])

    def test_the_spread_is_the_median_deviation_and_ignores_one_outlier(self):
        self.assertEqual(report.median_and_spread([10, 11, 12, 13, 1000]), (12, 1))

    def test_the_interval_holds_the_median_and_narrows_with_more_runs(self):
        few, many = report.interval([1, 2, 3, 4, 5]), report.interval([1, 2, 3, 4, 5] * 20)
        self.assertLessEqual(few[0], 3)
        self.assertGreaterEqual(few[1], 3)
        self.assertLess(many[1] - many[0], few[1] - few[0])

    def test_two_runs_have_no_interval(self):
        self.assertIsNone(report.interval([1, 2]))

    def test_an_arm_without_values_is_named_with_its_reason(self):
        scenario = {"metrics": [metric([1], [None])], "notes": {"shunt": "not tried: it is not built"}}
        self.assertIn("shunt: not tried: it is not built", report.long_table(scenario))
        self.assertNotIn("shunt  ", "\n".join(report.long_table(scenario)))


class Percentiles(unittest.TestCase):
    def measure(self, count):
        program = os.path.join(os.environ["BENCH_BUILD"], "floor")
        command = [program, "--target-only", "--warmup", "0", "--count", str(count)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    def test_a_tail_needs_ten_samples_beyond_it(self):
        for count, p90, p99, p99_9 in [(99, False, False, False), (100, True, False, False), (999, True, False, False),
                                       (1000, True, True, False), (9999, True, True, False), (10000, True, True, True)]:
            measured = self.measure(count)
            self.assertEqual(measured["samples"], count)
            carried = [measured[name] is not None for name in ("p90_ns", "p99_ns", "p99_9_ns")]
            self.assertEqual(carried, [p90, p99, p99_9], f"{count} samples")

    def test_percentiles_do_not_fall(self):
        measured = self.measure(10000)
        ordered = [measured[name] for name in ("p50_ns", "p90_ns", "p99_ns", "p99_9_ns")]
        self.assertEqual(ordered, sorted(ordered))
        self.assertGreater(ordered[0], 0)


class Pictures(unittest.TestCase):
    def result(self, **arms):
        metrics = [{"name": "m <1>", "unit": "us", "better": "lower",
                    "arms": {arm: {"base": None, "values": values} for arm, values in arms.items()}}]
        return {"environment": {"kernel": "k"}, "scenarios": [{"title": "t", "runs": 3, "metrics": metrics, "notes": {}}]}

    def bars(self, svg):
        shapes = xml.etree.ElementTree.fromstring(svg)
        return [float(shape.get("width")) for shape in shapes if shape.tag.endswith("rect") and shape.get("x")]

    def test_bars_are_as_long_as_their_medians(self):
        short, long = self.bars(picture.svg(self.result(native=[9, 10, 11], shunt=[29, 30, 31])))
        self.assertAlmostEqual(long, 3 * short, delta=0.2)

    def test_an_arm_without_values_has_no_bar(self):
        self.assertEqual(len(self.bars(picture.svg(self.result(native=[1, 2, 3], shunt=[None, None, None])))), 1)

    def test_what_is_not_ours_looks_so(self):
        self.assertEqual([picture.is_ours(arm) for arm in ("native", "shunt", "services", "haproxy", "shunt+haproxy")],
                         [False, True, True, False, False])

    def test_the_pictures_of_the_documentation_are_those_of_its_values(self):
        measured = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs", "measured")
        names = [name for name in os.listdir(measured) if name.endswith(".json")]
        self.assertTrue(names)
        for name in names:
            with open(os.path.join(measured, name)) as values, open(os.path.join(measured, name[:-5] + ".svg")) as drawn:
                self.assertEqual(drawn.read(), picture.svg(json.load(values)), name)


if __name__ == "__main__":
    unittest.main()
