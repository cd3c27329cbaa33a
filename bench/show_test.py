#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of bench/show: what it prints and writes of results, and what it refuses."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import bars  # noqa: E402
import course  # noqa: E402
import report  # noqa: E402
import written  # noqa: E402
from report_test import arm, result  # noqa: E402

BENCH = os.path.dirname(os.path.abspath(__file__))
SHOW = os.path.join(BENCH, "show")
SCHEMA = os.path.join(BENCH, "..", "docs", "bench-results.schema.json")


class Show(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.made = result(shunt=arm([20.0] * 7))

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def file(self, made, name="results.json"):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(made if isinstance(made, str) else json.dumps(made))
        return self.path(name)

    def show(self, *words):
        run = subprocess.run([SHOW, *words], capture_output=True, text=True, check=False, timeout=60, cwd=self.directory)
        return run.returncode, run.stdout, run.stderr

    def refuses(self, *words, named):
        status, shown, said = self.show(*words)
        self.assertEqual((status, shown, said.count("\n")), (2, "", 1), said)
        self.assertIn(named, said)

    def test_tables_are_those_of_the_report_of_a_file_or_its_directory(self):
        name = self.file(self.made)
        self.assertEqual(self.show(name), (0, report.text(self.made) + "\n", ""))
        self.assertEqual(self.show(self.directory), self.show(name))
        self.assertEqual(self.show(name, name)[1].count(report.text(self.made)), 2)

    def test_bars_of_several_are_one_table(self):
        names = [self.file(self.made, name) for name in ("a.json", "b.json")]
        self.assertEqual(self.show("--bars", *names), (0, bars.as_table(bars.rows_of_all([self.made, self.made])), ""))

    def test_a_report_is_written_anew_of_exactly_one(self):
        name = self.file(self.made)
        self.assertEqual(self.show(name, "--into", "out")[0], 0)
        for file, text in written.texts_of(self.made).items():
            with open(self.path("out", file), encoding="utf-8") as there:
                self.assertEqual(there.read(), text)
        self.refuses(name, name, "--into", "other", named="exactly one")
        self.refuses(name, "--bars", "--into", "other", named="--bars")
        self.refuses(name, "--into", name, named="no directory")
        self.assertFalse(os.path.exists(self.path("other")))

    def test_nothing_is_written_outside_the_directory_whatever_a_scenario_is_called(self):
        for scenario in (self.path("evil"), "../evil", "a/../../evil", "..", "", "evil\n", "-evil"):
            self.made["scenarios"][0]["name"] = scenario
            self.refuses(self.file(self.made, "bad.json"), "--into", "out/deep", named="bad.json")
        self.assertEqual(os.listdir(self.directory), ["bad.json"])

    def test_damaged_files_have_status_2_and_one_line(self):
        for text in ("", "{", "[]", "{}", "[" * 100_000, "\0", json.dumps(self.made)[:-40]):
            self.refuses(self.file(text, "bad.json"), named="bad.json")
        self.refuses("absent.json", named="absent.json")
        good = self.file(self.made, "good.json")
        self.refuses(good, self.file("{", "bad.json"), named="bad.json")

    def test_a_note_may_say_all_that_a_measurement_can_and_nothing_else(self):
        with open(SCHEMA, encoding="utf-8") as file:
            documented = re.search(r'"state": \{"enum": (\[.*?\])', file.read())[1]
        self.assertEqual(sorted(json.loads(documented)), sorted(course.NOTED))
        for state in (*course.NOTED, "lost"):
            self.made["scenarios"][0]["notes"] = {"pasta": {"state": state, "why": "so", "last_lines": []}}
            status, _, said = self.show(self.file(self.made))
            self.assertEqual(status, 0 if state in course.NOTED else 2, said)

    def test_an_arm_that_one_metric_lacks_is_damage(self):
        other = {**self.made["scenarios"][0]["metrics"][0], "name": "p50", "arms": {"other": arm([1.0])}}
        self.made["scenarios"][0]["metrics"].append(other)
        self.refuses(self.file(self.made, "bad.json"), named="bad.json")


if __name__ == "__main__":
    unittest.main()
