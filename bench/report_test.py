#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of what is made of results: tables, pictures, the page, results.json's form."""

import html.parser
import json
import os
import re
import statistics
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
import arithmetic  # noqa: E402
import bars  # noqa: E402
import histogram  # noqa: E402
import page  # noqa: E402
import picture  # noqa: E402
import report  # noqa: E402
import written  # noqa: E402
from scenarios import SCENARIOS, expanded  # noqa: E402

DOCS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "docs")
MEASURED = os.path.join(DOCS, "measured")
NANOSECONDS = {"sub_bits": 7, "counts": [[10, 500], [300, 400], [1000, 100]]}


def arm(values, base="native", floor="native", overhead=None):
    return {"base": base, "floor": floor, "overhead": overhead, "values": values}


def result(better="lower", notes=None, **arms):
    arms = {"native": arm([10.0] * 7, None), **arms}
    metric = {"name": "connect p99", "unit": "us", "better": better, "without": None, "arms": arms}
    scenario = {"name": "connect", "title": "a <title> & more", "runs": 7, "precision": None, "metrics": [metric],
                "distributions": {"connect": {"native": NANOSECONDS}}, "notes": notes or {}}
    return {"schema": "shunt-bench-1", "complete": True, "stopped_by": None, "environment": {"kernel": "k"},
            "harness": {"timestamp_ns": 20.0, "empty_sample_ns": 40}, "warnings": ["it is loud here"], "scenarios": [scenario]}


def results_of_documentation():
    """(folder, result) of each."""
    for name in sorted(os.listdir(MEASURED)):
        with open(os.path.join(MEASURED, name, "results.json"), encoding="utf-8") as file:
            yield name, json.load(file)


def row(made, name):
    return next(one for one in report.rows(made["scenarios"][0], made["harness"]) if one.arm == name)


class Tables(unittest.TestCase):
    def test_a_row_tells_ratio_interval_and_distance_to_the_floor(self):
        shunt = row(result(shunt=arm([20, 30, 40, 50, 60, 70, 80])), "shunt")
        self.assertEqual((shunt.median, shunt.ratio, shunt.bounds, shunt.base, shunt.verdict, shunt.floor),
                         ("50.0", "5.00x", "2.00-8.00", "native", "worse", "5.00x"))

    def test_more_of_what_should_be_high_is_better_and_less_of_it_is_away_from_the_floor(self):
        shunt = row(result("higher", shunt=arm([20.0] * 7)), "shunt")
        self.assertEqual((shunt.verdict, shunt.floor), ("better", "0.50x"))

    def test_the_floor_has_a_row_that_says_so(self):
        self.assertEqual(row(result(), "native").floor, "floor")

    def test_a_difference_inside_the_noise_is_none(self):
        self.assertEqual(row(result(shunt=arm([9, 9.5, 11, 11, 11, 11, 11])), "shunt").verdict, "no difference")

    def test_few_runs_have_a_ratio_and_no_verdict(self):
        shunt = row(result(shunt=arm([20, 20, None, None, None, None, None])), "shunt")
        self.assertEqual((shunt.ratio, shunt.bounds, shunt.verdict, shunt.runs), ("2.00x", "", "too few runs", "2"))

    def test_one_run_has_no_spread(self):
        rows = [row(result(shunt=arm(values)), "shunt") for values in ([20.0] + [None] * 6, [20.0, 24.0] + [None] * 5)]
        self.assertEqual([(one.median, one.spread) for one in rows], [("20.0", ""), ("22.0", "2.00")])

    def test_what_measuring_takes_stands_beside_each_figure(self):
        made = result(shunt=arm([20.0] * 7, overhead=0.5))
        self.assertEqual((row(made, "shunt").own, row(made, "native").own), ("0.5", "0.04"))

    def test_what_no_timestamp_measures_has_no_cost_of_one(self):
        made = result(shunt=arm([20.0] * 7))
        made["scenarios"][0]["metrics"][0]["name"] = "CPU per connection"
        self.assertEqual(row(made, "shunt").own, "")

    def test_a_percentile_that_no_run_carries_is_not_resolved(self):
        made = result(shunt=arm([None] * 7))
        made["scenarios"][0]["distributions"]["connect"]["shunt"] = NANOSECONDS | {"counts": [[10, 5]]}
        other = {**made["scenarios"][0]["metrics"][0], "name": "p50", "arms": {"shunt": arm([1.0] * 7)}}
        made["scenarios"][0]["metrics"].append(other)
        made["scenarios"][0]["metrics"][0]["arms"]["shunt"] = arm([None] * 7)
        other["arms"]["native"] = arm([1.0] * 7, None)
        self.assertEqual(row(made, "shunt").median, "not resolved")

    def test_a_percentile_that_all_runs_together_carry_is_told_as_that(self):
        made = result(shunt=arm([None] * 7))
        scenario = made["scenarios"][0]
        scenario["metrics"].append({**scenario["metrics"][0], "name": "8 threads", "unit": "/s"})
        scenario["metrics"][1]["arms"] = {"native": arm([1.0], None), "shunt": arm([1.0])}
        scenario["distributions"]["connect"]["shunt"] = {"sub_bits": 7, "counts": [[100, 980], [1000, 20]]}
        shunt = row(made, "shunt")
        self.assertEqual((shunt.median, shunt.runs, shunt.own, shunt.ratio),
                         (report.number(histogram.value_of(1000, 7) / 1000), "all", "0.04", ""))
        del scenario["distributions"]["connect"]["shunt"]["counts"][0]
        self.assertEqual(row(made, "shunt").median, "not resolved")

    def test_a_percentile_of_no_arm_is_one_line_that_says_what_it_takes(self):
        made = result(shunt=arm([20.0] * 7))
        scenario = made["scenarios"][0]
        arms = {"native": arm([None] * 7, None), "shunt": arm([None] * 7)}
        scenario["metrics"].append({**scenario["metrics"][0], "name": "connect p99.99", "arms": arms})
        scenario["metrics"].append({**scenario["metrics"][0], "name": "instructions", "arms": arms, "without": "no counters"})
        self.assertEqual({one.metric for one in report.rows(scenario, made["harness"])}, {"connect p99"})
        said = "connect p99.99: not resolved of any arm: it takes 1,000,000 samples, of all runs together; there are 1,000"
        for text in (report.text(made), report.markdown(made, {}), page.html(made, {})):
            self.assertEqual((text.count(said), text.count("instructions: no arm has a value: no counters")), (1, 1))
        self.assertEqual(report.unresolved_lines(result(native=arm([None]))["scenarios"][0]), [])  # the notes say why

    def test_far_out_a_percentile_is_told_only_beside_that_of_the_limit(self):
        made = result(shunt=arm([20.0] * 7))
        metric = made["scenarios"][0]["metrics"][0]
        metric["name"] = "connect p99.99"
        self.assertEqual(row(made, "shunt").median, "20.0")
        metric["arms"]["native"]["values"] = [None] * 7
        made["scenarios"][0]["metrics"].append({**metric, "name": "connect p99"})  # so that native was measured
        made["scenarios"][0]["metrics"][1]["arms"] = {"native": arm([10.0] * 7, None), "shunt": arm([20.0] * 7)}
        self.assertEqual([one.median for one in report.rows(made["scenarios"][0], {}) if one.metric == "connect p99.99"], [])
        made["scenarios"][0]["distributions"]["connect"]["native"] = {"sub_bits": 7, "counts": [[100, 1_000_000]]}
        self.assertEqual(row(made, "shunt").median, "20.0")

    def test_what_was_not_measured_of_an_arm_is_not_called_unresolved(self):
        made = result(shunt=arm([None] * 7))
        metric = made["scenarios"][0]["metrics"][0]
        made["scenarios"][0]["metrics"].append({**metric, "name": "p50", "arms": {"native": arm([1.0], None), "shunt": arm([1.0])}})
        self.assertEqual([one.metric for one in report.rows(made["scenarios"][0], {}) if one.arm == "shunt"], ["p50"])
        made["scenarios"][0]["distributions"]["connect"]["shunt"] = {"sub_bits": 7, "counts": [[1, 3]]}
        self.assertEqual([one.median for one in report.rows(made["scenarios"][0], {}) if one.arm == "shunt"],
                         ["not resolved", "1.00"])

    def test_what_does_not_apply_to_an_arm_has_no_row(self):
        made = result(shunt=arm([20.0] * 7))
        metric = made["scenarios"][0]["metrics"][0]
        made["scenarios"][0]["metrics"].append({**metric, "name": "rate", "unit": "/s", "arms": {
            "native": arm([1.0] * 7, None), "shunt": arm([None] * 7)}})
        self.assertEqual([one.median for one in report.rows(made["scenarios"][0], {}) if one.arm == "shunt"], ["20.0"])

    def test_a_scenario_that_has_not_begun_has_no_picture(self):
        self.assertEqual(written.drawn({**result()["scenarios"][0], "runs": 0}), [])

    def test_an_arm_without_values_is_named_with_its_reason_and_its_last_lines(self):
        notes = {"pasta": {"state": "failed", "why": "exit status 3", "last_lines": ["no <tun> here"]}}
        made = result(pasta=arm([None] * 7), notes=notes)
        self.assertIn("pasta: failed: exit status 3", report.text(made))
        self.assertNotIn("pasta  ", report.text(made))
        self.assertIn("      no <tun> here", report.markdown(made, {}))

    def test_arms_with_the_same_reason_are_named_together(self):
        about = {"state": "absent", "why": "only root may", "last_lines": []}
        made = result(notes={"pasta": about, "nginx": about, "haproxy": {**about, "why": "not here"}})
        self.assertIn("pasta, nginx: absent: only root may\nhaproxy: absent: not here", report.text(made))

    def test_what_is_incomplete_says_so_first(self):
        made = {**result(), "complete": False, "stopped_by": "SIGINT"}
        self.assertTrue(report.text(made).startswith("INCOMPLETE: stopped by SIGINT"))
        self.assertIn("INCOMPLETE", report.markdown(made, {}))

    def test_what_has_ended_by_itself_was_not_stopped(self):
        made = {**result(), "complete": False, "stopped_by": "the stage ended with exit status 1"}
        self.assertTrue(report.text(made).startswith("INCOMPLETE: the stage ended with exit status 1; "))

    def test_a_precision_that_was_not_reached_is_told(self):
        made = result()
        for reached, said in ((0.05, "5.0% of it, 3% was asked for: not reached"), (0.02, "2.0% of it, 3% was asked for"),
                              (None, "not every ratio of \"m\" had enough runs; 3% was asked for: not reached")):
            made["scenarios"][0]["precision"] = {"asked": 0.03, "reached": reached, "metric": "m"}
            self.assertIn(said, report.text(made))

    def test_how_and_when_it_was_measured_stands_above_the_tables(self):
        made = {**result(), "command": "shunt bench connect --tiny", "started": "2026-01-02T03:04:05+00:00"}
        for shown in (report.text(made), report.markdown(made, {})):
            self.assertIn("command: shunt bench connect --tiny", shown)
            self.assertIn("started: 2026-01-02T03:04:05+00:00", shown)

    def test_warnings_and_the_harness_cost_stand_above_the_tables(self):
        self.assertIn("warning: it is loud here", report.text(result()))
        self.assertIn("a timestamp takes 20 ns, a measurement of nothing 40 ns", report.text(result()))


class Histograms(unittest.TestCase):
    def test_an_index_stands_for_its_value_within_one_percent(self):
        for value in (0, 1, 127, 128, 129, 255, 256, 1000, 12345, 987654, 2**39 + 12345):
            octave = max(value.bit_length() - 7, 0)
            index = value if octave == 0 else octave * 128 + (value >> (octave - 1)) - 128
            self.assertAlmostEqual(histogram.value_of(index, 7), value, delta=value / 128)

    def test_a_curve_ends_where_the_samples_do_not_carry_it(self):
        self.assertEqual([share for share, _ in histogram.curve(NANOSECONDS)], [0.5, 0.9])
        many = {"sub_bits": 7, "counts": [[index, 1000] for index in range(100, 1100)]}
        self.assertEqual(histogram.curve(many)[-1][0], 0.999)

    def test_percentiles_need_ten_samples_beyond_and_far_out_a_hundred(self):
        def with_samples(count):
            return {"sub_bits": 7, "counts": [[1, count]]}
        for fraction, needed in ((0.9, 100), (0.99, 1000), (0.999, 100_000), (0.9999, 1_000_000)):
            self.assertIsNone(histogram.percentile(with_samples(needed - 1), fraction))
            self.assertEqual(histogram.percentile(with_samples(needed), fraction), 1)
        self.assertEqual(histogram.percentile(NANOSECONDS, 0.5), 10)


class Pictures(unittest.TestCase):
    def scenario(self, **arms):
        return result(**arms)["scenarios"][0]

    def bars(self, svg):
        shapes = xml.etree.ElementTree.fromstring(svg)
        return [float(shape.get("width")) for shape in shapes if shape.tag.endswith("rect") and shape.get("class") in
                ("sb-floor", "sb-ours", "sb-peer")]

    def test_bars_are_as_long_as_their_medians(self):
        short, long = self.bars(picture.scenario_picture(self.scenario(shunt=arm([29, 30, 31]))))
        self.assertAlmostEqual(long, 3 * short, delta=0.2)

    def test_an_arm_without_values_has_no_bar(self):
        self.assertEqual(len(self.bars(picture.scenario_picture(self.scenario(shunt=arm([None, None]))))), 1)

    def test_what_is_not_ours_looks_so(self):
        self.assertEqual([picture.is_ours(arm) for arm in ("native", "shunt", "services", "haproxy", "shunt+haproxy")],
                         [False, True, True, False, False])

    def test_a_curve_rises_to_the_right(self):
        many = {"sub_bits": 7, "counts": [[index, 1000] for index in range(100, 1100)]}
        scenario = {**self.scenario(), "distributions": {"connect": {"native": many}}}
        shapes = xml.etree.ElementTree.fromstring(picture.distribution_picture(scenario))
        line = next(shape for shape in shapes if shape.tag.endswith("polyline"))
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        self.assertGreater(len(points), 20)
        self.assertEqual(points, sorted(points, key=lambda point: (point[0], -point[1])))

    def test_without_distributions_there_is_no_picture_of_them(self):
        self.assertIsNone(picture.distribution_picture({**self.scenario(), "distributions": {}}))


class Documentation(unittest.TestCase):
    """Its figures are those of results that lie beside it."""

    def test_each_result_is_a_whole_run_of_what_its_command_says(self):
        for name, made in results_of_documentation():
            asked = made["command"].split()[2:]  # shunt bench SCENARIO... OPTIONS
            asked = asked[:next((i for i, word in enumerate(asked) if word.startswith("-")), len(asked))]
            self.assertEqual([scenario["name"] for scenario in made["scenarios"]], expanded(asked), name)
            self.assertTrue(made["complete"] and made["harness"], name)
            self.assertRegex(made["environment"]["revision"], r", [0-9a-f]{7,}$", name)  # a commit, without changes of one's own

    def test_reports_and_pictures_are_those_of_the_values(self):
        for name, made in results_of_documentation():
            for file, text in written.texts_of(made).items():
                with open(os.path.join(MEASURED, name, file), encoding="utf-8") as there:
                    self.assertEqual(there.read(), text, f"{name}/{file}: bench/show docs/measured/{name}/results.json --into ...")

    def test_bars_are_those_of_the_values(self):
        rows = bars.rows_of_all([made for _, made in results_of_documentation()])
        with open(os.path.join(DOCS, "performance.md"), encoding="utf-8") as file:
            shown = bars.as_table(rows) in file.read()
        self.assertTrue(shown, "bench/show --bars docs/measured/*/results.json prints another table")

    def test_no_other_measured_figure_stands_in_text(self):
        figure = re.compile(r"\b\d[\d.,]* ?(?:us|ms|ns|MiB|KiB|Gbit/s)\b|\b\d[\d.]*x\b")
        rows = bars.as_table(bars.rows_of_all([made for _, made in results_of_documentation()]))
        for name in ("docs/performance.md", "README.md"):
            with open(os.path.join(DOCS, "..", name), encoding="utf-8") as file:
                self.assertEqual(figure.findall(file.read().replace(rows, "")), [], name)


def medians(scenario, metric):
    """{arm: median} of the results of the documentation that have it; where several do, of the first."""
    for _, made in results_of_documentation():
        for one in made["scenarios"]:
            for two in one["metrics"]:
                if (one["name"], two["name"]) == (scenario, metric):
                    return {arm: statistics.median(arithmetic.present(measured["values"])) for arm, measured in two["arms"].items()
                            if arithmetic.present(measured["values"])}
    raise AssertionError(f"nothing has {scenario}: {metric}")


def is_half(one, other):
    return 0.4 <= one / other <= 0.6


def is_half_in_requests_and_twice_in_cpu():
    requests, cpu = medians("balance", "wrk, 16 kept connections"), medians("balance", "CPU per request")
    return all(is_half(requests[proxy], requests["native"]) and is_half(cpu["native"], cpu[proxy]) for proxy in ("haproxy", "nginx"))


# Words in docs/performance.md that say how much, each with what shows it; None: it is no measurement but how something is made.
HOW_MUCH = {
    "A proxy halves the requests and doubles the CPU": is_half_in_requests_and_twice_in_cpu,
    "A thousand changes a second for each of 5,000 nodes are gigabytes a second":
        lambda: 2e9 < medians("many-services", "told per change")["shunt cluster"] * 1000 * 5000 < 20e9,
    "one in which both run pays twice": None,  # two programs with two streams each
    "every connect wakes threads on other CPUs four times": None,  # counted: bench/counted_test.py
    "half of it by chance": None,  # of a pause
    "a quarter of a shelf": None,  # net/twin_pool.h
    "Half a shelf made that": None,
}


class HowMuch(unittest.TestCase):
    """What no digit says in docs/performance.md."""

    WORDS = re.compile(r"(?i)\b(?:half|halves|thirds?|quarters?|fifth|sixth|seventh|eighth|ninth|tenth|twice|thrice|doubles?|triples?"
                       r"|(?:two|three|four|five|ten|several|many) times|giga\w+|percent)\b")

    def test_each_word_has_what_shows_it(self):
        with open(os.path.join(DOCS, "performance.md"), encoding="utf-8") as file:
            text = re.sub(r"\s+", " ", file.read())
        for words, shows in HOW_MUCH.items():
            self.assertEqual(text.count(words), 1, words)
            self.assertTrue(shows is None or shows(), words)
            text = text.replace(words, "")
        left = [text[max(found.start() - 40, 0):found.end() + 40] for found in self.WORDS.finditer(text)]
        self.assertEqual(left, [])


class Bars(unittest.TestCase):
    """Of bench/bars.py, in the words of a table."""

    @staticmethod
    def scenario(name, metrics, notes=None):
        return {"name": name, "runs": 7, "notes": notes or {}, "metrics": [
            {"name": metric, "unit": unit, "better": better, "arms": {name: arm(values) for name, values in arms.items()}}
            for metric, unit, better, arms in metrics]}

    def of(self, name, metrics, notes=None):
        return {row[0]: row[2:] for row in bars.rows({"scenarios": [self.scenario(name, metrics, notes)]})}

    def test_a_ratio_is_of_the_same_run_and_has_its_interval(self):
        native, shunt = [10.0, 20, 40, 10, 20, 40, 10], [30.0, 60, 120, 30, 60, 120, 40]
        found = self.of("connect", [("connect p50", "us", "lower", {"native": native, "shunt": shunt}),
                                    ("connect p99", "us", "lower", {"native": native, "shunt": [4 * one for one in shunt]})])
        self.assertEqual(found["an accelerated connect"], ["3.00x (3.00-4.00)", "at most 3.5x", "met, within the noise"])
        self.assertEqual(found["what acceleration adds to a connect"], ["40.0 us (20.0 to 80.0)", "at most 17 us", "missed"])
        self.assertEqual(found["the tail of a connect"][1:], ["at most 3x", "missed"])

    def test_more_is_better_where_a_bar_says_at_least(self):
        made = lambda value: self.of("closed-loop", [("8 threads", "/s", "higher",  # noqa: E731
                                                      {"native": [100.0], "shunt": [value]})])
        self.assertEqual(made(59.0)["8 threads in a closed loop"], ["0.59x", "at least 0.6x", "missed"])
        self.assertEqual(made(61.0)["8 threads in a closed loop"][-1], "met")

    def test_the_same_takes_runs_that_carry_it_and_no_difference_among_them(self):
        made = lambda values: self.of("untrapped", [("read", "ns", "lower",  # noqa: E731
                                                     {"any-filter": [100.0] * len(values), "shunt": values})])
        bar = "read, which is not trapped"
        self.assertEqual(made([99.0, 99, 100, 100, 101, 101, 101])[bar][-1], "met")
        self.assertEqual(made([101.0, 102, 102, 102, 102, 102, 103])[bar][-1], "missed")
        self.assertEqual(made([91.0, 92, 92, 92, 92, 92, 93])[bar][-1], "met")  # it is better
        self.assertEqual(made([100.0])[bar][-1], "too few runs")
        kept = lambda value: self.of("balance", [("wrk, 16 kept connections", "/s", "higher",  # noqa: E731
                                                  {"native": [100.0] * 7, "services": [value] * 7})])
        self.assertEqual([kept(value)["requests on kept connections"][-1] for value in (90.0, 110.0)], ["missed", "met"])

    def test_noise_is_not_the_same(self):
        def said(bar, name, metric, better, ratios):
            arms = {bar.beside: [100.0] * len(ratios), bar.arm: [100.0 * ratio for ratio in ratios]}
            return self.of(name, [(metric, "ns", better, arms)])[bar.what][1:]
        calls, network = [next(bar for bar in bars.BARS if bar.what.startswith(words))
                          for words in ("read, which", "requests on kept")]
        self.assertEqual(said(calls, "untrapped", "read", "lower", [.99, 1.5, 1.5, 1.5, 1.5, 1.5, 2]),
                         ["no difference within 5%", "cannot tell"])
        for ratios, wanted in (([.99, 1, 1, 1, 1, 1, 1.04], "met"), ([.99, 1, 1, 1, 1, 1, 1.06], "cannot tell"),
                               ([.5, 1, 1, 1, 1, 1, 1.04], "met"), ([1.01, 1.01, 1.01, 1.02, 1.02, 1.02, 1.02], "missed")):
            self.assertEqual(said(calls, "untrapped", "read", "lower", ratios)[1], wanted, ratios)
        for ratios, wanted in (([.92, 1, 1, 1, 1, 1, 3], "met"), ([.89, .93, .93, .93, .93, .93, 1.06], "cannot tell"),
                               ([0, 1, 1, 1, 1, 1, 1], "cannot tell"), ([.9, .9, .9, .9, .9, .9, .99], "missed")):
            said_of = said(network, "balance", "wrk, 16 kept connections", "higher", ratios)
            self.assertEqual(said_of, ["no difference within 10%", wanted], ratios)

    def test_a_bar_without_a_value_stays_with_its_reason(self):
        what = "an agent with 1000 containers"
        made = lambda values, state=None: self.of(  # noqa: E731
            "scale", [("memory", "MiB", "lower", {"shunt 1000": values})],
            state and {"shunt 1000": {"state": state, "why": "w", "last_lines": []}})
        self.assertEqual(made([31.0])[what], ["31.0 MiB", "at most 32 MiB", "met"])
        self.assertEqual(made([31.0])["an agent with 1000 idle containers"], ["", "at most 1 ms/s", "not measured"])
        for state in ("failed", "absent", "not begun"):
            self.assertEqual(made([None], state)[what], ["", "at most 32 MiB", f"shunt 1000: {state}"])
        self.assertEqual(made([None], "disturbed")[what][-1], "not measured")
        beside = self.of("balance", [("CPU per request", "us", "lower", {"services": [1.0], "nginx": [None]})],
                         {"nginx": {"state": "failed", "why": "w", "last_lines": []}})
        self.assertEqual([beside[f"CPU of a request beside {proxy}"][-1] for proxy in ("nginx", "haproxy")],
                         ["nginx: failed", "not measured"])

    def test_a_bar_names_who_has_failed_in_some_of_its_runs(self):
        notes = {"shunt killed": {"state": "failed", "why": "w", "last_lines": []}}
        killed = lambda values, notes: self.of(  # noqa: E731
            "crash", [("failed calls", "", "lower", {"shunt killed": values})], notes)["engines that are killed: calls that failed"]
        self.assertEqual(killed([0, 0, None, 0, 0, 0, 0], notes)[-1], "met; shunt killed failed, 1 of 7 runs say nothing")
        self.assertEqual(killed([0] * 7, notes)[-1], "met")
        self.assertEqual(killed([0, 0, None, 0, 0, 0, 0], {})[-1], "met")  # as a percentile that its samples do not carry

    def test_each_bar_has_a_row_in_the_table_of_several_results(self):
        several = [{"scenarios": [self.scenario("scale", [("memory", "MiB", "lower", {"shunt 1000": [value]})])]}
                   for value in (1, 2)]
        rows = bars.rows_of_all(several)
        self.assertEqual([row[2] for row in rows[:4]], ["1.00 MiB", "", "2.00 MiB", ""])
        self.assertEqual({row[0] for row in rows}, {bar.what for bar in bars.BARS})
        self.assertEqual({row[-1] for row in rows[4:]}, {"not measured"})
        self.assertEqual(len(rows), len(bars.BARS) + 2)

    def test_bars_are_about_arms_and_metrics_that_there_are(self):
        for bar in bars.BARS:
            scenario = SCENARIOS[bar.scenario]
            self.assertIn(bar.metric, scenario.metrics, bar)
            self.assertIn(bar.arm, scenario.arms, bar)
            if bar.beside:
                self.assertIn(bar.beside, scenario.metrics if bar.kind == "tail" else scenario.arms, bar)


class Page(html.parser.HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value) for name, value in attrs if name != "xmlns"]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise AssertionError(f"{tag} ends what did not begin")


class Written(unittest.TestCase):
    def test_the_page_has_its_pictures_inside_and_fetches_nothing(self):
        with tempfile.TemporaryDirectory() as directory:
            notes = {"pasta": {"state": "absent", "why": "<pasta> is not on PATH", "last_lines": []}}
            written.write_all(result(shunt=arm([20.0] * 7), notes=notes), directory)
            self.assertEqual(sorted(os.listdir(directory)), ["connect-latency.svg", "connect.svg", "report.html", "report.md",
                                                            "results.json"])
            with open(os.path.join(directory, "report.html"), encoding="utf-8") as file:
                text = file.read()
            page = Page(text)
            self.assertEqual((page.tags.count("svg"), page.tags.count("table"), page.open), (2, 2, []))
            self.assertIn(("name", "viewport"), page.attributes)
            self.assertFalse([tag for tag in page.tags if tag in ("script", "link", "img", "iframe", "object")])
            self.assertFalse([value for _, value in page.attributes if value and re.search(r"https?:|//|url\(", value)])
            self.assertFalse(re.search(r"@import|url\(", text))
            self.assertIn("&lt;pasta&gt; is not on PATH", text)
            with open(os.path.join(directory, "report.md"), encoding="utf-8") as file:
                named = re.findall(r"\]\((.*?)\)", file.read())
            self.assertEqual(sorted(named), ["connect-latency.svg", "connect.svg"])

    def written_over(self, former, directory):
        """What is in there when a report with one picture is written over it, with pictures of the user's beside it."""
        for name in ("floor-latency.svg", "connect-latency.svg", "mine.svg"):
            with open(os.path.join(directory, name), "w", encoding="ascii") as file:
                file.write("mine")
        if former is not None:
            written.write_all(former, directory)
        made = result()
        made["scenarios"][0] |= {"name": "floor", "distributions": {}}
        written.write_all(made, directory)
        return sorted(set(os.listdir(directory)) - {"report.html", "report.md", "results.json"})

    def test_pictures_of_the_former_report_go_and_those_of_the_user_stay(self):
        with tempfile.TemporaryDirectory() as directory:
            self.assertEqual(self.written_over(None, directory), ["connect-latency.svg", "floor-latency.svg", "floor.svg", "mine.svg"])
            self.assertEqual(self.written_over(result(), directory), ["floor-latency.svg", "floor.svg", "mine.svg"])

    def test_nothing_goes_by_a_result_of_somebody_elses(self):
        with tempfile.TemporaryDirectory() as above:
            os.mkdir(directory := os.path.join(above, "report"))
            outside = result()
            outside["scenarios"][0]["name"] = "../outside"
            for former in (json.dumps(outside), "[]", "{", '{"scenarios": [{"name": "floor-latency", "runs": 1}]}', '{"scenarios": 1}'):
                for path in (os.path.join(directory, "results.json"), os.path.join(above, "outside.svg")):
                    with open(path, "w", encoding="utf-8") as file:
                        file.write(former)
                self.assertIn("floor-latency.svg", self.written_over(None, directory), former)
                self.assertTrue(os.path.exists(os.path.join(above, "outside.svg")), former)


class Schema:
    """As much of JSON Schema as docs/bench-results.schema.json uses; a word that is not understood is an error."""

    TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    NOTHING = {"$schema", "title", "$defs"}

    def __init__(self, schema):
        self.whole = schema

    def is_of(self, value, name):
        if name in ("number", "integer"):
            return isinstance(value, int if name == "integer" else (int, float)) and not isinstance(value, bool)
        return isinstance(value, self.TYPES[name])

    def faults(self, value, schema=None, place="$"):
        schema = self.whole if schema is None else schema
        for word, wanted in schema.items():
            yield from self.check(word, wanted, value, schema, place)

    def check(self, word, wanted, value, schema, place):
        if word == "$ref":
            yield from self.faults(value, self.whole["$defs"][wanted.removeprefix("#/$defs/")], place)
        elif word == "type":
            if not any(self.is_of(value, name) for name in ([wanted] if isinstance(wanted, str) else wanted)):
                yield f"{place}: {value!r:.40} is no {wanted}"
        elif word in ("const", "enum"):
            if value not in ([wanted] if word == "const" else wanted):
                yield f"{place}: {value!r:.40} is not {wanted}"
        elif word == "required":
            yield from (f"{place}: {name} is missing" for name in wanted if isinstance(value, dict) and name not in value)
        elif word in ("properties", "additionalProperties"):
            for name, inner in value.items() if isinstance(value, dict) else ():
                known = name in schema.get("properties", {})
                if known == (word == "properties"):
                    rule = wanted[name] if known else wanted
                    if rule is False:
                        yield f"{place}: {name} is unknown"
                    else:
                        yield from self.faults(inner, rule, f"{place}.{name}")
        elif word == "items":
            for i, inner in enumerate(value if isinstance(value, list) else ()):
                yield from self.faults(inner, wanted, f"{place}[{i}]")
        elif word in ("minItems", "maxItems"):
            if len(value) < wanted if word == "minItems" else len(value) > wanted:
                yield f"{place}: {len(value)} items"
        elif word not in self.NOTHING:
            raise AssertionError(f"{place}: nobody here knows the word {word}")


class Form(unittest.TestCase):
    def setUp(self):
        with open(os.path.join(DOCS, "bench-results.schema.json"), encoding="utf-8") as file:
            self.schema = Schema(json.load(file))

    def test_a_result_has_the_documented_form(self):
        notes = {"pasta": {"state": "absent", "why": "it is not here", "last_lines": []}}
        made = json.loads(written.as_json(result(shunt=arm([1, None]), pasta=arm([None]), notes=notes)))
        self.assertEqual(made, result(shunt=arm([1, None]), pasta=arm([None]), notes=notes))
        self.assertEqual(list(self.schema.faults(made)), [])

    def test_the_measured_values_of_the_documentation_have_it(self):
        measured = list(results_of_documentation())
        self.assertTrue(measured)
        for name, made in measured:
            self.assertEqual(list(self.schema.faults(made)), [], name)

    def test_another_form_is_found(self):
        for change in ({"schema": "x"}, {"complete": 1}, {"scenarios": [{}]}, {"environment": {"kernel": 6}}, {"more": 1}):
            self.assertTrue(list(self.schema.faults({**result(), **change})), change)
        broken = result()
        broken["scenarios"][0]["metrics"][0]["arms"]["native"]["values"][0] = "10"
        self.assertEqual(list(self.schema.faults(broken)), ["$.scenarios[0].metrics[0].arms.native.values[0]: '10' is no "
                                                            "['number', 'null']"])


if __name__ == "__main__":
    unittest.main()
