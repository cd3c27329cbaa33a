#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `bench/run compare`: what is a change, what is noise, what is the machine, and how a caller hears of it."""

import json
import os
import random
import subprocess
import sys
import tempfile
import unittest

RUN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "run")


def result(shunt=1.0, machine=1.0, runs=21, noise=0.02, seed=1, better="lower", kernel="6.1", memory=None):
    """Native beside shunt, which costs `shunt` times three of it; `machine`: how slow everything is."""
    chance = random.Random(seed)
    native = [10 * machine * (1 + chance.uniform(-noise, noise)) for _ in range(runs)]
    ours = [3 * shunt * value * (1 + chance.uniform(-noise, noise)) for value in native]
    if better == "higher":
        native, ours = [1 / value for value in native], [1 / value for value in ours]
    metrics = [{"name": "connect p50", "unit": "us", "better": better, "arms": {
        "native": {"base": None, "floor": "native", "overhead": None, "values": native},
        "shunt": {"base": "native", "floor": "native", "overhead": None, "values": ours}}}]
    if memory:
        values = [memory + chance.uniform(0, 0.1) for _ in range(runs)]
        metrics.append({"name": "RSS", "unit": "MiB", "better": "lower",
                        "arms": {"shunt": {"base": None, "floor": None, "overhead": None, "values": values}}})
    scenario = {"name": "connect", "title": "t", "runs": runs, "precision": None, "metrics": metrics, "distributions": {},
                "notes": {}}
    return {"schema": "shunt-bench-1", "complete": True, "stopped_by": None, "environment": {"kernel": kernel},
            "scenarios": [scenario]}


class Compare(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def run_it(self, *words):
        return subprocess.run([RUN, "compare", *words], capture_output=True, text=True, check=False, timeout=60)

    def compare(self, before, after, *words):
        """(exit status, {(metric, arm): change}, whole answer)."""
        paths = [os.path.join(self.directory.name, name) for name in ("a.json", "b.json")]
        for path, made in zip(paths, (before, after)):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(made, file)
        run = self.run_it(*paths, "--json", *words)
        self.assertEqual(run.stderr, "")
        answer = json.loads(run.stdout)
        self.assertEqual(self.run_it(*paths, *words).returncode, run.returncode)  # for people, the same
        return run.returncode, {(change["metric"], change["arm"]): change for change in answer["changes"]}, answer

    def test_two_measurements_of_the_same_are_no_difference(self):
        status, changes, _ = self.compare(result(), result(seed=2))
        self.assertEqual((status, changes["connect p50", "shunt"]["verdict"]), (0, "no difference"))

    def test_ten_percent_more_are_a_regression_whichever_way_the_metric_goes(self):
        for better in ("lower", "higher"):
            status, changes, answer = self.compare(result(better=better), result(1.1, seed=2, better=better))
            change = changes["connect p50", "shunt"]
            self.assertEqual((status, change["verdict"], answer["regression"]), (1, "REGRESSION", True))
            self.assertAlmostEqual(change["dearer"], 1.1, delta=0.03)
            self.assertTrue(1.05 < change["interval"][0] < 1.1 < change["interval"][1])

    def test_within_the_bound_it_is_worse_and_no_regression(self):
        status, changes, _ = self.compare(result(), result(1.1, seed=2), "--bound", "20%")
        self.assertEqual((status, changes["connect p50", "shunt"]["verdict"]), (0, "worse"))

    def test_less_is_better(self):
        status, changes, _ = self.compare(result(), result(0.8, seed=2))
        self.assertEqual((status, changes["connect p50", "shunt"]["verdict"]), (0, "better"))

    def test_a_slower_machine_is_nobodys_regression(self):
        status, changes, _ = self.compare(result(), result(machine=2, seed=2))
        self.assertEqual(status, 0)
        self.assertEqual(changes["connect p50", "shunt"]["verdict"], "no difference")
        self.assertEqual(changes["connect p50", "native"]["verdict"], "the machine")

    def test_what_has_no_base_is_compared_as_it_is(self):
        status, changes, _ = self.compare(result(memory=7), result(memory=9, seed=2))
        self.assertEqual((status, changes["RSS", "shunt"]["verdict"]), (1, "REGRESSION"))

    def test_what_was_nothing_and_is_something_is_a_regression_and_the_other_way_better(self):
        def failed_calls(*values, better="lower"):
            made = result()
            made["scenarios"][0]["metrics"] = [{"name": "failed calls", "unit": "", "better": better, "arms": {
                "shunt": {"base": None, "floor": None, "overhead": None, "values": list(values)}}}]
            return made
        none, some, few = [0] * 7, [3, 4, 5, 6, 7, 8, 9], [0, 0, 0, 0, 1, 1, 2]
        for before, after, better, wanted in (
                (none, some, "lower", (1, "REGRESSION")), (some, none, "lower", (0, "better")),
                (none, some, "higher", (0, "better")), (some, none, "higher", (1, "REGRESSION")),
                (none, none, "lower", (0, "no difference")), (none, few, "lower", (0, "no difference")),
                (none[:5], some[:5], "lower", (0, "too few runs"))):
            status, changes, _ = self.compare(failed_calls(*before, better=better), failed_calls(*after, better=better))
            self.assertEqual((status, changes["failed calls", "shunt"]["verdict"]), wanted, (before, after, better))

    def test_few_runs_decide_nothing(self):
        status, changes, _ = self.compare(result(runs=3), result(3, runs=3))
        self.assertEqual((status, changes["connect p50", "shunt"]["verdict"]), (0, "too few runs"))

    def test_other_machines_and_parts_that_are_missing_are_warned_of(self):
        after = result(kernel="6.18", memory=1)
        after["complete"] = False
        _, _, answer = self.compare(result(), after)
        for words in ("different kernel: 6.1 before, 6.18 after", "second result is incomplete",
                      "only in the second: connect: RSS"):
            self.assertIn(words, "\n".join(answer["warnings"]))

    def test_an_arm_that_has_failed_in_one_of_them_is_warned_of(self):
        after = result()
        after["scenarios"][0]["metrics"][0]["arms"]["shunt"]["values"] = [None] * 21
        _, _, answer = self.compare(result(), after)
        self.assertEqual(answer["warnings"], ["only in the first: connect: connect p50: shunt"])

    def test_wrong_use_has_status_2_and_one_line(self):
        for words in (["/nonexistent", "/nonexistent"], [RUN, RUN], ["one"], [], ["a", "b", "--bound", "much"],
                      ["a", "b", "--bound", "nan"], ["a", "b", "--bound", "inf"]):
            run = self.run_it(*words)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), words)
            self.assertIn(words[-1] if "--bound" in words else "", run.stderr)

    def test_what_has_another_form_is_no_result(self):
        path = os.path.join(self.directory.name, "a.json")
        for other in ([], {}, {"scenarios": None, "environment": None}, {"scenarios": [{}], "environment": {}},
                      {**result(), "environment": None}):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(other, file)
            run = self.run_it(path, path)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), other)
            self.assertIn(path, run.stderr)


if __name__ == "__main__":
    unittest.main()
