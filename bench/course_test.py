#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of which arm is measured when, how often, and what is kept of it; and of the progress that is shown."""

import io
import random
import socket
import sys
import types
import unittest

sys.dont_write_bytecode = True
import course  # noqa: E402
import on_stage  # noqa: E402
import peers  # noqa: E402
from progress import Progress, left  # noqa: E402
from scenarios import GROUPS, expanded  # noqa: E402
from scenarios.scenario import Scenario  # noqa: E402
from scenarios.stage import Failed, Stage  # noqa: E402


class Three:
    title, as_root = "three ways", False
    arms, metrics = ["native", "shunt", "shunt+haproxy"], {"took": ("us", "lower"), "often": ("/s", "higher")}

    def base(self, arm):
        return None if arm == "native" else "native"

    def floor(self, arm):
        return "native"


class Script:
    """Answers measurements from a table; remembers what was asked."""

    def __init__(self, answers=None, stop_after=None):
        self.answers, self.stop_after, self.asked = answers or {}, stop_after, []

    def __call__(self, scenario, arm):
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise course.Stopped("SIGINT")
        self.asked.append(arm)
        state = self.answers.get(arm, course.MEASURED)
        if isinstance(state, dict):
            return state
        if callable(state):
            return {"state": course.MEASURED, "values": {"took": state()}}
        if state == course.MEASURED:
            return {"state": state, "values": {"took": len(self.asked)}, "overheads": {"took": 0.02},
                    "distributions": {"latency": {"sub_bits": 7, "counts": [[5, 1], [7, 2]]}}}
        return {"state": state, "why": "because", "last_lines": ["one", "two"]}


def run(plan, script, names=("three",)):
    way = course.Course(plan, lambda *_: None)
    try:
        way.run([(name, Three(), Three.arms) for name in names], script)
    except course.Stopped:
        pass
    return way.results()


class Order(unittest.TestCase):
    def test_the_arms_take_turns_forth_and_back(self):
        script = Script()
        run(course.Plan(3), script)
        self.assertEqual(script.asked, Three.arms + Three.arms[::-1] + Three.arms)

    def test_an_arm_that_is_absent_is_not_asked_again_and_said_to_be(self):
        script = Script({"shunt": course.ABSENT})
        result = run(course.Plan(3), script)[0]
        self.assertEqual(script.asked.count("shunt"), 1)
        self.assertEqual(result["notes"]["shunt"]["state"], "absent")
        self.assertEqual(result["metrics"][0]["arms"]["shunt"]["values"], [None] * 3)

    def test_an_arm_that_fails_twice_is_given_up_with_its_last_lines(self):
        script = Script({"shunt": course.FAILED})
        result = run(course.Plan(5), script)[0]
        self.assertEqual(script.asked.count("shunt"), 2)
        self.assertEqual(result["notes"]["shunt"], {"state": "failed", "why": "because", "last_lines": ["one", "two"]})
        self.assertEqual(script.asked.count("native"), 5)

    def test_a_disturbance_is_told_with_the_number_of_runs_that_had_one_and_costs_no_value(self):
        disturbed = {"state": course.MEASURED, "values": {"took": 1}, "disturbed": "it was loud"}
        result = run(course.Plan(3), Script({"shunt": disturbed}))[0]
        self.assertEqual(result["notes"], {"shunt": {"state": "disturbed", "last_lines": [],
                                                     "why": "in 3 of its runs, this one the last: it was loud"}})
        self.assertEqual(result["metrics"][0]["arms"]["shunt"]["values"], [1, 1, 1])

    def test_why_a_metric_has_no_value_here_is_kept(self):
        answer = {"state": course.MEASURED, "values": {"took": 1}, "without": {"often": "nobody counts"}}
        result = run(course.Plan(2), Script({"shunt": answer}))[0]
        self.assertEqual([metric["without"] for metric in result["metrics"]], [None, "nobody counts"])

    def test_histograms_of_all_runs_are_put_together(self):
        result = run(course.Plan(4), Script())[0]
        self.assertEqual(result["distributions"]["latency"]["native"], {"sub_bits": 7, "counts": [[5, 4], [7, 8]]})
        self.assertEqual(result["metrics"][0]["arms"]["native"]["overhead"], 0.02)


class Rates(unittest.TestCase):
    def test_what_measuring_takes_of_a_rate_is_what_there_would_be_more_without_it(self):
        scenario = Scenario(types.SimpleNamespace(arguments=types.SimpleNamespace(tiny=True, seconds=1)))
        # Two threads, each of whose operations takes 10 us, of which 2 are for the clock.
        self.assertEqual(scenario.rate({"per_second": 200_000, "overhead_ns": 2000, "threads": 2}, "often"), {"often": 200_000})
        self.assertAlmostEqual(scenario.overheads["often"], 50_000)  # 250,000 at 8 us


class Commands(unittest.TestCase):
    def stage(self, seconds):
        return Stage("/nonexistent", types.SimpleNamespace(seconds=seconds, net="none"))

    def test_a_command_has_the_time_that_it_was_asked_to_take(self):
        endless = ["tail", "-f", "/dev/null"]
        for seconds, limit in ((0.001, "0.12"), (0.02, "0.5")):
            self.assertRaisesRegex(Failed, f"no end after {limit} s: tail", self.stage(seconds).json, endless, 0.1)


class FullQueue(Scenario):
    """A measurement whose server accepts nobody. With `room` nobody notices."""

    def __init__(self, room):  # takes no stage
        self.room = room

    def measure(self, arm):
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(self.room)
            clients = [socket.socket() for _ in range(6)]
            for client in clients:
                client.setblocking(False)
                client.connect_ex(server.getsockname())
            for client in clients:
                client.close()
        return {"took": 1}


class Disturbances(unittest.TestCase):
    def test_a_server_whose_queue_was_full_is_told(self):
        self.assertRegex(on_stage.measured(FullQueue(0), "native")["disturbed"], r"queue was full, \d+ times")
        answers = [on_stage.measured(FullQueue(20), "native") for _ in range(20)]  # others may have met one of somebody else
        self.assertTrue(any("disturbed" not in answer for answer in answers))

    def test_connections_that_failed_are_told_where_there_were_few(self):
        class Lossy(FullQueue):
            def __init__(self, *results):
                self.results = results

            def measure(self, arm):
                return {"took": sum(self.sound(result)["samples"] for result in self.results)}

        few = {"samples": 10_000, "errors": {"ETIMEDOUT": 99, "ECONNRESET": 1}}
        more = {"samples": 1000, "errors": {"ETIMEDOUT": 10}}
        too_many = {"samples": 1000, "errors": {"ETIMEDOUT": 11}}
        none = {"samples": 1000, "errors": {}}
        self.assertEqual(on_stage.answer(Lossy(few, none, too_many), "native")["state"], "failed")
        said = on_stage.answer(Lossy(more, none, few), "native")
        self.assertEqual((said["state"], said["values"]), ("measured", {"took": 12_000}))
        self.assertIn("110 of 11,110 connections failed (ECONNRESET: 1, ETIMEDOUT: 109), which", said["disturbed"])
        self.assertNotIn("connections failed", on_stage.answer(Lossy(none), "native").get("disturbed", ""))

    def test_a_measurement_that_is_disturbed_in_both_ways_tells_both(self):
        class Both(FullQueue):
            def measure(self, arm):
                self.sound({"samples": 1000, "errors": {"ETIMEDOUT": 1}})
                return super().measure(arm)

        self.assertRegex(on_stage.measured(Both(0), "native")["disturbed"], "queue was full.*; 1 of 1,001 connections failed")


class Precision(unittest.TestCase):
    def measured(self, noise, most=60):
        chance = random.Random(1)
        script = Script({arm: lambda: 10 * (1 + chance.uniform(-noise, noise)) for arm in Three.arms})
        return run(course.Plan(most, 0.03, most), script)[0]

    def test_a_quiet_machine_needs_few_runs(self):
        self.assertEqual(self.measured(0.001)["runs"], course.Plan(precision=0.03).fewest())

    def test_a_noisier_one_needs_more_and_stops_when_it_is_enough(self):
        result = self.measured(0.03)
        self.assertTrue(7 < result["runs"] < 60, result["runs"])
        self.assertLessEqual(result["precision"]["reached"], 0.03)

    def test_it_ends_at_the_bound_and_says_how_far_it_came(self):
        result = self.measured(0.5, 12)
        self.assertEqual(result["runs"], 12)
        self.assertGreater(result["precision"]["reached"], 0.03)


class Stopping(unittest.TestCase):
    def test_what_was_measured_stays_and_what_was_not_is_said(self):
        results = run(course.Plan(3), Script(stop_after=4), ("three", "later"))
        took = results[0]["metrics"][0]["arms"]
        self.assertEqual(took["native"]["values"], [1, None])
        self.assertEqual(took["shunt+haproxy"]["values"], [3, 4])
        self.assertEqual(list(results[0]["notes"]), ["shunt"])
        self.assertEqual({about["state"] for about in results[1]["notes"].values()}, {"not begun"})
        self.assertEqual(set(results[1]["notes"]), set(Three.arms))

    def test_an_arm_that_was_not_reached_is_named(self):
        notes = run(course.Plan(3), Script(stop_after=1))[0]["notes"]
        self.assertEqual({arm: about["state"] for arm, about in notes.items()}, {"shunt": "stopped", "shunt+haproxy": "not begun"})

    def test_an_arm_that_was_being_measured_is_told_with_how_long(self):
        clock, way = [0.0], None

        def hang(scenario, arm):
            clock[0] += 90
            if len(way.durations) == 1:
                raise course.Stopped("SIGINT")
            return {"state": course.MEASURED, "values": {"took": 1}}

        way = course.Course(course.Plan(2), lambda *_: None, lambda: clock[0])
        self.assertRaises(course.Stopped, way.run, [("three", Three(), Three.arms)], hang)
        about = way.results()[0]["notes"]["shunt"]
        self.assertEqual((about["state"], about["why"]), ("stopped", "while it was measured, in run 1 for 90.0 s"))

    def test_a_run_counts_when_one_arm_has_had_it(self):
        self.assertEqual([run(course.Plan(3), Script(stop_after=asked))[0]["runs"] for asked in (0, 1, 3, 4, 9)], [0, 1, 1, 2, 3])


class Chosen(unittest.TestCase):
    def test_a_scenario_that_is_named_twice_is_measured_once(self):
        self.assertEqual(expanded(["wrk", "floor", "apps", "floor"]),
                         ["wrk", "floor", *(name for name in GROUPS["apps"] if name != "wrk")])

    def test_native_and_shunt_are_always_there(self):
        self.assertEqual(peers.chosen_arms(Three(), ["pasta"]), ["native", "shunt"])
        self.assertEqual(peers.chosen_arms(Three(), ["haproxy"]), Three.arms)
        self.assertEqual(peers.chosen_arms(Three()), Three.arms)

    def test_what_a_chosen_arm_is_compared_with_is_there_too(self):
        class OverPasta(Three):
            arms = ["native", "pasta", "nginx", "shunt"]

            def base(self, arm):
                return "pasta" if arm == "shunt" else None

        self.assertEqual(peers.chosen_arms(OverPasta(), ["haproxy"]), ["native", "pasta", "shunt"])

    def test_what_was_asked_for_in_vain_is_told(self):
        self.assertEqual(peers.without_arm(Three(), ["haproxy", "pasta", "native"]), ["pasta"])

    def test_unknown_names_are_refused(self):
        self.assertRaisesRegex(ValueError, "envoy", peers.read_against, "haproxy,envoy")
        self.assertRaises(ValueError, peers.read_place, "haproxy=/nonexistent")
        self.assertEqual(peers.read_place("haproxy=/bin/sh"), ("haproxy", "/bin/sh"))


class Shown(unittest.TestCase):
    def test_the_time_that_is_left_follows_from_what_each_arm_took(self):
        clock, told = [0.0], []

        def measure(scenario, arm):
            clock[0] += 10 if arm == "shunt" else 1
            return {"state": course.MEASURED, "values": {"took": 1}}

        way = course.Course(course.Plan(2), lambda *words: told.append(words), lambda: clock[0])
        way.run([("three", Three(), Three.arms)], measure)
        self.assertEqual([seconds for _, _, seconds, _ in told][3:], [12, 11, 1])
        self.assertEqual([(done, to_do) for done, to_do, _, _ in told], [(i, 6 - i) for i in range(6)])

    def test_a_terminal_gets_a_bar_on_one_line_and_a_file_gets_lines(self):
        terminal, file = io.StringIO(), io.StringIO()
        terminal.isatty = lambda: True
        for stream in (terminal, file):
            progress = Progress(stream, lambda: 60)
            progress(3, 9, 90, "connect, run 1 of 7: pasta")
            progress.end()
        self.assertIn("[######------------------]  25% 2 min left, connect", terminal.getvalue())
        self.assertNotIn("\n", terminal.getvalue())
        self.assertLess(max(map(len, terminal.getvalue().split("\r\x1b[K"))), 60)
        self.assertEqual(file.getvalue(), "3/12 2 min left, connect, run 1 of 7: pasta\n")

    def shown(self, columns, seconds=90):
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        Progress(terminal, lambda: columns)(3, 9, seconds, "connect, run 1 of 7: pasta")
        return terminal.getvalue().removeprefix("\r\x1b[K")

    def test_on_a_narrow_terminal_the_bar_is_shorter_and_then_not_there_at_all(self):
        self.assertEqual(self.shown(40), "[####------------]  25% 2 min left, con")
        self.assertEqual(self.shown(33), "[###----------]  25% 2 min left,")
        self.assertEqual(self.shown(27), " 25% 2 min left, connect, ")
        self.assertEqual(self.shown(20), " 25% 2 min left, co")
        self.assertEqual(self.shown(20, None), "[##------]  25% con")

    def test_times_are_said_in_words(self):
        self.assertEqual([left(seconds) for seconds in (0.2, 59, 61, 7260, None)],
                         ["1 s left", "59 s left", "1 min left", "2 h 01 min left", ""])


if __name__ == "__main__":
    unittest.main()
