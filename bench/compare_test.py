#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `bench/run compare`: what is a change, what is noise, what is the machine, and how a caller hears of it."""

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import types
import unittest

sys.dont_write_bytecode = True
import compare  # noqa: E402
import results  # noqa: E402
from arithmetic_test import most_failures  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

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

    @staticmethod
    def write(paths, results):
        for path, made in zip(paths, results):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(made, file)

    def compare(self, before, after, *words):
        """(exit status, {(metric, arm): change}, whole answer)."""
        paths = [os.path.join(self.directory.name, name) for name in ("a.json", "b.json")]
        self.write(paths, (before, after))
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

    def arms_of(self, name, unit, seed, **arms):
        """A result of one metric: {arm: (base, its middle, or None for no values)}."""
        chance = random.Random(seed)
        made = result()
        made["scenarios"][0]["metrics"] = [{"name": name, "unit": unit, "better": "lower", "arms": {
            arm.replace("_", " "): {"base": base, "floor": None, "overhead": None, "values": [
                None if middle is None else middle * (1 + chance.uniform(-0.02, 0.02)) for _ in range(21)]}
            for arm, (base, middle) in arms.items()}}]
        return made

    def verdicts(self, before, after, *words):
        """(exit status, {(arm, of): verdict})."""
        status, _, answer = self.compare(before, after, *words)
        return status, {(change["arm"], change["of"]): change["verdict"] for change in answer["changes"]}

    def test_what_the_base_has_no_value_of_is_compared_as_it_is(self):
        for unit, of in (("", "value"), ("s", "s"), ("MiB", "MiB")):
            for base in (None, 0):
                made = [self.arms_of("it takes", unit, seed, native=(None, base), shunt=("native", middle))
                        for seed, middle in ((1, 50), (2, 505), (3, 50))]
                for after, wanted in ((1, (1, "REGRESSION")), (2, (0, "no difference"))):
                    status, found = self.verdicts(made[0], made[after], "--strict")
                    self.assertEqual((status, found["shunt", of]), wanted, (unit, base))
                    self.assertNotIn(("shunt", "ratio to native"), found)

    def test_a_base_that_has_become_nothing_is_not_missing(self):
        made = [self.arms_of("it takes", "us", seed, native=(None, base), shunt=("native", 50))
                for seed, base in ((1, 9), (2, 0))]
        self.assertEqual(self.verdicts(*made), (0, {("native", "us"): "the machine", ("shunt", "us"): "no difference"}))

    def test_what_no_machine_makes_slower_is_compared_as_it_is_too(self):
        def scale(unit, factor, seed):
            return self.arms_of("it takes", unit, seed, shunt_1=(None, 10 * factor), shunt_10=("shunt 1", 40 * factor))
        status, found = self.verdicts(scale("MiB", 1, 1), scale("MiB", 5, 2))
        self.assertEqual((status, found), (1, {("shunt 1", "MiB"): "REGRESSION", ("shunt 10", "MiB"): "REGRESSION",
                                               ("shunt 10", "ratio to shunt 1"): "no difference"}))
        for unit in ("us", "ms/s", "calls/s"):  # here the one that all share is enough
            self.assertNotIn(("shunt 10", unit), self.verdicts(scale(unit, 1, 1), scale(unit, 5, 2))[1])

    def test_only_who_has_none_of_our_code_shows_what_the_machine_does(self):
        def twice(base, arm):
            made = [self.arms_of("calm p50", "us", seed, **{base: (None, 10 * seed), arm: (base.replace("_", " "), 20 * seed)})
                    for seed in (1, 2)]
            status, found = self.verdicts(*made)
            return status, found[base.replace("_", " "), "us"]
        for base in ("native", "native-apart", "bare-pin", "bare_1 listener", "any-filter", "haproxy", "slirp4netns-published"):
            self.assertEqual(twice(base, "shunt"), (0, "the machine"), base)
        for base in ("none", "none-watched", "shunt_1", "services", "shunt+haproxy"):
            self.assertEqual(twice(base, "connects"), (1, "REGRESSION"), base)

    def test_whose_code_each_arm_runs_that_others_are_compared_with(self):
        stage = types.SimpleNamespace(arguments=types.SimpleNamespace(tiny=True, seconds=1))
        foreign = set()
        for name in SCENARIOS:
            scenario = SCENARIOS[name](stage)
            foreign |= {arm for arm in map(scenario.base, scenario.arms) if arm and not compare.has_our_code(arm)}
        self.assertEqual({re.split("[- ]", arm)[0] for arm in foreign}, {"native", "bare", "any"})

    def test_no_metric_of_an_arm_vanishes(self):
        before = result(memory=7)
        after = json.loads(json.dumps(before))
        for metric in before["scenarios"][0]["metrics"]:
            for arm in metric["arms"].values():
                arm["base"] = "native"  # which has no memory
        _, changes, _ = self.compare(before, after)
        self.assertEqual(set(changes), {("connect p50", "native"), ("connect p50", "shunt"), ("RSS", "shunt")})

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
                (none, none, "lower", (0, "no difference")), (none, few, "lower", (0, "cannot tell")),
                (some, some, "lower", (0, "cannot tell")), (few, none, "lower", (0, "no worse")),
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

    def without(self, gone, state=None, why="exit status 3"):
        """A result in which these arms have no value; `state` says so in the notes."""
        made = result(seed=2)
        for arm in gone:
            made["scenarios"][0]["metrics"][0]["arms"][arm]["values"] = [None] * 21
            if state:
                made["scenarios"][0]["notes"][arm] = {"state": state, "why": why, "last_lines": []}
        return made

    def test_what_has_no_value_any_more_is_missing_with_its_reason_and_passes_no_gate(self):
        for gone, why in ((["shunt"], {"shunt": "failed: exit status 3"}),
                          (["native", "shunt"], {"native": "failed: exit status 3", "shunt": "failed: exit status 3"}),
                          (["native"], {"native": "failed: exit status 3", "shunt": "native has none"})):
            status, changes, answer = self.compare(result(), self.without(gone, "failed"))
            self.assertEqual((status, answer["missing"], answer["regression"]), (1, True, False))
            for arm, reason in why.items():
                change = changes["connect p50", arm]
                self.assertEqual((change["verdict"], change["why"], change["dearer"]), ("MISSING", reason, None))
        self.assertEqual(self.compare(self.without(["shunt"]), self.without(["shunt"], "failed"))[0], 0)  # nor before

    def test_people_are_told_what_is_missing(self):
        paths = [os.path.join(self.directory.name, name) for name in ("a.json", "b.json")]
        self.write(paths, (result(memory=7), self.without(["shunt"], "absent", "not here")))
        said = self.run_it(*paths).stdout
        self.assertIn("\nMISSING: no value in the second result: connect: shunt: connect p50: absent: not here\n", said)
        self.assertIn("\nMISSING: no value in the second result: connect: shunt: RSS: it was not asked for\n", said)

    def test_an_arm_that_was_given_up_after_some_runs_passes_no_gate(self):
        after = result(seed=2)
        values = after["scenarios"][0]["metrics"][0]["arms"]["shunt"]["values"]
        values[4:] = [None] * 17
        self.assertEqual(self.compare(result(), after)[1]["connect p50", "shunt"]["verdict"], "too few runs")
        after["scenarios"][0]["notes"]["shunt"] = {"state": "failed", "why": "crashed", "last_lines": []}
        status, changes, _ = self.compare(result(), after)
        self.assertEqual((status, changes["connect p50", "shunt"]["why"]), (1, "failed: crashed"))

    def test_an_arm_that_has_begun_to_fail_is_named_and_passes_no_strict_gate_however_many_runs_it_had(self):
        after = result(seed=2)
        after["scenarios"][0]["metrics"][0]["arms"]["shunt"]["values"][10:] = [None] * 11
        after["scenarios"][0]["notes"]["shunt"] = {"state": "failed", "why": "crashed", "last_lines": []}
        paths = [os.path.join(self.directory.name, name) for name in ("a.json", "b.json")]
        for words, wanted in (([], 0), (["--strict"], 1), (["--strict", "--common"], 1)):
            status, changes, answer = self.compare(result(), after, *words)
            self.assertEqual((status, answer["failed"]), (wanted, ["connect: shunt: crashed"]))
            self.assertEqual(changes["connect p50", "shunt"]["verdict"], "no difference")
            self.assertIn("\nfailed in the second result: connect: shunt: crashed\n", self.run_it(*paths, *words).stdout)
        before = json.loads(json.dumps(after))
        status, _, answer = self.compare(before, after, "--strict")  # that is no news
        self.assertEqual((status, answer["failed"]), (0, []))
        after["scenarios"][0]["notes"]["shunt"]["state"] = "disturbed"
        self.assertEqual(self.compare(result(), after, "--strict")[2]["failed"], [])

    def test_a_scenario_or_an_arm_that_was_not_asked_for_is_left_out_on_demand(self):
        more, other = result(), result(seed=3)["scenarios"][0]
        more["scenarios"].append({**other, "name": "floor"})
        status, _, answer = self.compare(more, result(seed=2))
        self.assertEqual((status, {change["why"] for change in answer["changes"]}), (1, {None, "it was not asked for"}))
        status, changes, answer = self.compare(more, result(seed=2), "--common")
        self.assertEqual((status, answer["missing"], len(answer["changes"])), (0, False, 2))
        self.assertIn("left out: no value in the second result: floor: native: connect p50: it was not asked for",
                      answer["warnings"])
        self.assertEqual(changes["connect p50", "shunt"]["verdict"], "no difference")

    def test_a_ratio_is_never_compared_with_a_value(self):
        after = result(seed=2)
        del after["scenarios"][0]["metrics"][0]["arms"]["native"]  # measured with --arms shunt
        after["scenarios"][0]["metrics"][0]["arms"]["shunt"]["base"] = None
        status, changes, _ = self.compare(result(), after)
        self.assertEqual((status, changes["connect p50", "shunt"]["why"]), (1, "it is compared with nothing there"))

    def test_results_of_different_scenarios_have_nothing_in_common(self):
        after = result()
        after["scenarios"][0]["name"] = "floor"
        paths = [os.path.join(self.directory.name, name) for name in ("a.json", "b.json")]
        self.write(paths, (result(), after))
        run = self.run_it(*paths)
        self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1))

    def test_an_interval_that_reaches_beyond_the_bound_tells_nothing_and_how_many_runs_would(self):
        loud = [result(noise=0.3, runs=7, seed=seed) for seed in (1, 2)]
        status, changes, answer = self.compare(*loud)
        change = changes["connect p50", "shunt"]
        self.assertEqual((status, change["verdict"], answer["undecided"]), (0, "cannot tell", True))
        self.assertGreater(change["runs_needed"], 50)
        self.assertEqual(self.compare(*loud, "--strict")[0], 1)
        self.assertEqual(self.compare(*loud, "--bound", "400%", "--strict")[0], 0)
        for nothing in ("0%", "1e-300"):
            self.assertIsNone(self.compare(*loud, "--bound", nothing)[1]["connect p50", "shunt"]["runs_needed"])
        self.assertEqual(self.compare(result(), result(seed=2), "--strict")[0], 0)
        few = self.compare(result(runs=3), result(runs=3), "--strict")
        self.assertEqual((few[0], few[1]["connect p50", "shunt"]["runs_needed"]), (1, 6))

    def test_a_machine_of_which_nobody_can_tell_is_no_reason_to_be_undecided(self):
        before, after = result(), result(seed=2)
        for made in (before, after):  # the machine jumps; the ratio stays
            for arm in made["scenarios"][0]["metrics"][0]["arms"].values():
                arm["values"] = [value * (1 + run % 3) for run, value in enumerate(arm["values"])]
        status, changes, answer = self.compare(before, after, "--strict")
        self.assertEqual((status, answer["undecided"]), (0, False), changes)
        self.assertEqual(changes["connect p50", "native"]["verdict"], "the machine")

    def test_wrong_use_has_status_2_and_one_line(self):
        for words in (["/nonexistent", "/nonexistent"], [RUN, RUN], ["one"], [], ["a", "b", "--bound", "much"],
                      ["a", "b", "--bound", "nan"], ["a", "b", "--bound", "inf%"], ["a", "b", "--bound", "5"],
                      ["a", "b", "--bound", "5%%"]):
            run = self.run_it(*words)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), words)
            self.assertIn(words[-1] if "--bound" in words else "", run.stderr)

    def refused(self, text, named):
        """That a file of this text is, on either side, with these words and the file's name."""
        good, bad = [os.path.join(self.directory.name, name) for name in ("good.json", "bad.json")]
        self.write([good], [result()])
        with open(bad, "w", encoding="utf-8") as file:
            file.write(text)
        for paths in ((good, bad), (bad, good)):
            run = self.run_it(*paths)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), (text[:80], run.stderr))
            self.assertIn(f"{bad} ", run.stderr)
            self.assertIn(named, run.stderr)

    def test_what_has_another_form_is_no_result(self):
        for other, named in (([], "object"), ({}, "shunt-bench-1"), ({**result(), "schema": "shunt-bench-2"}, "has measured it"),
                             ({**result(), "scenarios": None}, "scenarios"), ({**result(), "scenarios": [{}]}, "scenarios[0]"),
                             ({**result(), "environment": None}, "environment")):
            self.refused(json.dumps(other), named)
        self.refused("", "damaged")
        self.refused("[" * 100_000, "damaged")

    def test_each_part_that_is_missing_or_of_another_kind_is_found(self):
        made = result()
        made["scenarios"][0]["notes"] = {"shunt": {"state": "failed", "why": "it crashed", "last_lines": []}}
        made["scenarios"][0]["distributions"] = {"connect": {"shunt": {"sub_bits": 7, "counts": [[10, 3]]}}}
        results.check(made)
        parts = [(made, name) for name in made] + [(made["scenarios"][0], name) for name in made["scenarios"][0]]
        for one in (made["scenarios"][0]["metrics"][0], made["scenarios"][0]["metrics"][0]["arms"]["shunt"],
                    made["scenarios"][0]["notes"]["shunt"], made["scenarios"][0]["distributions"]["connect"]["shunt"]):
            parts += [(one, name) for name in one]
        for one, name in parts:
            kept = one.pop(name)
            self.assertRaises(results.Unusable, results.check, made)
            one[name] = {"of": ["another", "kind"]}
            self.assertRaises(results.Unusable, results.check, made)
            one[name] = kept
        results.check(made)

    def test_a_value_that_is_no_finite_number_is_refused(self):
        text = json.dumps(result()).replace('"values": [', '"values": [@, ', 1)
        for value in ("NaN", "-Infinity", "1e400", "1" + "0" * 400, "1e300", '"1"', "true", "[]"):
            self.refused(text.replace("@", value), "scenarios[0].metrics[0].arms.native.values[0]")

    def test_a_scenario_or_a_metric_that_is_there_twice_is_refused(self):
        made = result()
        made["scenarios"] *= 2
        self.refused(json.dumps(made), "scenarios has 'connect' twice")
        made = result()
        made["scenarios"][0]["metrics"] *= 2
        self.refused(json.dumps(made), "metrics has 'connect p50' twice")

    def test_a_histogram_whose_values_nothing_can_hold_is_refused(self):
        made = result()
        made["scenarios"][0]["distributions"] = {"connect": {"shunt": {"sub_bits": 7, "counts": [[2**40, 1]]}}}
        self.refused(json.dumps(made), "histogram")

    def test_what_is_in_another_unit_or_better_the_other_way_does_not_compare(self):
        paths = [os.path.join(self.directory.name, name) for name in ("a.json", "b.json")]
        for member, value in (("unit", "ns"), ("better", "higher")):
            after = result(seed=2)
            after["scenarios"][0]["metrics"][0][member] = value
            self.write(paths, (result(), after))
            run = self.run_it(*paths)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1))
            self.assertIn(f"{paths[1]} does not compare: connect: connect p50", run.stderr)

    def test_a_directory_stands_for_the_result_in_it(self):
        self.write([os.path.join(self.directory.name, "results.json")], [result()])
        self.assertEqual(self.run_it(self.directory.name, self.directory.name).returncode, 0)
        run = self.run_it(self.directory.name, "/")
        self.assertEqual((run.returncode, run.stderr.count("\n")), (2, 1))
        self.assertIn("/results.json", run.stderr)

    def test_a_reader_who_has_gone_changes_nothing_and_a_full_disk_has_status_2(self):
        paths = [os.path.join(self.directory.name, name) for name in ("a.json", "b.json")]
        self.write(paths, (result(), result(2, seed=2)))

        def run_into(stdout, *words):
            buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
            run = subprocess.run([RUN, "compare", *paths, *words], stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60,
                                 env=buffered)
            return run.returncode, run.stderr
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "wb") as gone:
            self.assertEqual([run_into(gone, *words) for words in ([], ["--json"])], [(1, b"")] * 2)
        with open("/dev/full", "wb") as full:
            status, said = run_into(full)
        self.assertEqual((status, said.count(b"\n")), (2, 1))
        self.assertIn(b"No space left", said)


class Truth(unittest.TestCase):
    """Results of which it is known whether they differ: twenty of each kind, of sixty rows, as many as a usual result has."""

    BOUND, ROWS, TIMES = 0.05, 60, 20

    def said(self, noise, runs, dearer=1.0, rows=1):
        """What is said of each of twenty comparisons: a list of verdicts for each."""
        answers = []
        for seed in range(self.TIMES):
            before, after = ({**result(), "scenarios": [
                {**result(factor, noise=noise, runs=runs, seed=f"{seed} {row} {which}")["scenarios"][0], "name": f"s{row}"}
                for row in range(rows)]} for which, factor in (("before", 1.0), ("after", dearer)))
            answers.append([row.verdict for row in compare.comparison(before, after, self.BOUND) if row.arm == "shunt"])
        return answers

    def test_identical_candidates_are_no_regression_however_loud_it_is(self):
        for noise in (0.02, 0.1, 0.4):
            alarms = [answer for answer in self.said(noise, 7, rows=self.ROWS) if compare.REGRESSION in answer]
            self.assertLessEqual(len(alarms), most_failures(self.TIMES, 0.05), noise)

    def test_identical_candidates_are_no_difference_where_the_runs_suffice_and_else_it_cannot_tell(self):
        quiet = [answer[0] for answer in self.said(0.02, 21)]
        self.assertGreaterEqual(quiet.count("no difference"), self.TIMES - most_failures(self.TIMES, 0.05), quiet)
        loud = [answer[0] for answer in self.said(0.4, 21)]
        self.assertEqual(loud.count("no difference"), 0, loud)
        self.assertGreaterEqual(loud.count("cannot tell"), self.TIMES - most_failures(self.TIMES, 0.05), loud)

    def test_twice_the_bound_is_found_where_the_runs_suffice_and_else_never_told_as_none(self):
        found = [answer[0] for answer in self.said(0.02, 21, 1 + 2 * self.BOUND)]
        self.assertGreaterEqual(found.count("REGRESSION"), self.TIMES - 1, found)
        loud = [answer[0] for answer in self.said(0.4, 7, 1 + 2 * self.BOUND)]
        self.assertEqual(loud.count("no difference") + loud.count("no worse"), 0, loud)

    def test_as_many_runs_as_it_asks_for_tell(self):
        first = [row for seed in range(self.TIMES) for row in compare.comparison(
            result(noise=0.1, runs=7, seed=f"{seed} a"), result(noise=0.1, runs=7, seed=f"{seed} b"), self.BOUND)
            if row.verdict == "cannot tell"]
        self.assertGreater(len(first), self.TIMES / 2)
        runs = int(statistics.median(row.runs for row in first))
        same = [answer[0] for answer in self.said(0.1, runs)]
        self.assertGreaterEqual(same.count("no difference") + same.count("no worse"), 0.75 * self.TIMES, (runs, same))
        dearer = [answer[0] for answer in self.said(0.1, runs, 1 + 2 * self.BOUND)]
        self.assertGreaterEqual(dearer.count("REGRESSION"), 0.75 * self.TIMES, (runs, dearer))
        few = [answer[0] for answer in self.said(0.1, runs // 8, 1 + 2 * self.BOUND)]
        self.assertLess(few.count("REGRESSION"), 0.5 * self.TIMES, (runs, few))  # and it does not ask for many times too many


if __name__ == "__main__":
    unittest.main()
