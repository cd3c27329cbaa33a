#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the harness as people use it, by the program SHUNT: `shunt bench`, on a real stage, as short as it gets."""

import contextlib
import glob
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import unittest.mock

sys.dont_write_bytecode = True
import course  # noqa: E402
import peers  # noqa: E402
import places  # noqa: E402
import probe  # noqa: E402
import stage_link  # noqa: E402
import written  # noqa: E402

SHUNT = os.environ["SHUNT"]
SKIPPED = 77


def bench(*words, **more):
    return subprocess.run([SHUNT, "bench", *words], capture_output=True, text=True, check=False, timeout=100, **more)


def command_line(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended
        return ""


def namespace_of(pid):
    """Of process ids; None: it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return file.read().split()
    except OSError:  # it has ended
        return []


def stage_of(pid):
    """(its namespace, what it has in /tmp) of the stage that this process has."""
    ahead = [pid]
    while ahead:
        one = ahead.pop()
        ahead += children(one)
        if there := re.search(r"on_stage\.py (/tmp/\w+(?:\.\w+)?)", command_line(one)):
            return namespace_of(one), there[1]
    raise AssertionError("there is no stage")


def runs_there(namespace):
    """Whether a process is left of the stage with this namespace."""
    return any(namespace_of(pid) == namespace for pid in os.listdir("/proc") if pid.isdigit())


@contextlib.contextmanager
def begun(command):
    """A process that does not outlive a test that has failed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            yield run
        except BaseException:
            run.kill()
            raise


class Usage(unittest.TestCase):
    def test_help_begins_with_examples_and_names_all_scenarios(self):
        shown = bench("--help")
        self.assertEqual(shown.returncode, 0)
        self.assertTrue(shown.stdout.startswith("examples:\n  shunt bench  "), shown.stdout)
        for words in ("connect", "balance", "untrapped", "--precision", "compare", "probe"):
            self.assertIn(words, shown.stdout)

    def test_wrong_words_are_named_in_one_line(self):
        for words, named in ((["conect"], "conect"), (["--against", "envoy"], "envoy"), (["--runs", "0"], "--runs"),
                             (["--seconds", "nan"], "--seconds"), (["--seconds", "inf"], "--seconds"),
                             (["--seconds", "0"], "--seconds"), (["--seconds", "-1"], "--seconds"),
                             (["--seconds", "3601"], "--seconds"), (["--seconds", "1e300"], "--seconds"),
                             (["--precision", "3"], "--precision"), (["--peer", "pasta=/nonexistent"], "/nonexistent"),
                             (["--peer", "pasta=/etc"], "/etc"), (["--peer", "pasta=/etc/passwd"], "/etc/passwd"),
                             (["--shunt", "/nonexistent"], "/nonexistent"), (["--shunt", "/etc"], "/etc"),
                             (["--shunt", "/etc/passwd"], "/etc/passwd"), (["--shunt", ""], "--shunt"), (["--net", "lan"], "lan"),
                             (["--precision", "3%", "--runs", "3"], "--runs"), (["--no-such"], "--no-such"),
                             (["probe", "--spin-ms", "0"], "--spin-ms"), (["floor", "--arms", "pasta"], "pasta"),
                             (["floor", "--arms", " ,"], "--arms")):
            run = bench(*words)
            self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), words)
            self.assertIn(named, run.stderr)

    def test_a_place_where_no_report_can_be_left_is_told_before_anything_is_measured(self):
        with tempfile.NamedTemporaryFile() as file:
            for place, named in ((file.name, file.name), (os.path.join(file.name, "below"), file.name), ("/proc/x", "/proc/x"),
                                 ("", "--out: it names no directory")):
                run = bench("floor", "--tiny", "--arms", "native", "--out", place)
                self.assertEqual((run.returncode, run.stdout, run.stderr.count("\n")), (2, "", 1), run.stderr)
                self.assertIn(named, run.stderr)

    def test_a_place_that_was_tried_is_as_it_was(self):
        with tempfile.TemporaryDirectory() as directory:
            for place in (directory, os.path.join(directory, "not", "yet")):
                self.assertIsNone(written.why_not(place))
                self.assertEqual(os.listdir(directory), [])

    def test_a_build_without_programs_is_named_with_the_remedy(self):
        run = bench("--build", "/nonexistent")
        self.assertEqual((run.returncode, run.stderr.count("\n")), (1, 1))
        self.assertRegex(run.stderr, "/nonexistent/bench.*cmake --build")

    def test_a_program_without_its_harness_says_where_that_would_be(self):
        with tempfile.TemporaryDirectory() as directory:
            alone = os.path.join(directory, "bin", "shunt")
            os.mkdir(os.path.dirname(alone))
            shutil.copy(SHUNT, alone)
            run = subprocess.run([alone, "bench"], capture_output=True, text=True, check=False, timeout=20)
        self.assertEqual((run.returncode, run.stderr.count("\n")), (1, 1))
        self.assertIn(os.path.join(directory, "libexec/shunt/bench/run"), run.stderr)


class Probe(unittest.TestCase):
    def test_it_tells_the_same_to_people_and_to_programs(self):
        found = json.loads(bench("probe", "--json", "--spin-ms", "20").stdout)
        self.assertEqual(found["kernel"], os.uname().release)
        self.assertEqual(found["cpus"], len(os.sched_getaffinity(0)))
        self.assertTrue(found["features"]["notify"])
        # What shunt itself cannot do without; the machine that this runs on is one on which it works.
        self.assertTrue(found["features"]["addfd"])
        self.assertTrue(0 < found["clock"]["timestamp_ns"] < 10_000)
        self.assertTrue(all(wake["ns"] > 100 for wake in found["wake_ups"]))
        self.assertTrue(all(0 <= spin["lost_us"] <= spin["seconds"] * 1e6 for spin in found["spin"]))
        self.assertEqual({spin["cpu"] for spin in found["spin"]}, os.sched_getaffinity(0))
        shown = bench("probe", "--spin-ms", "20").stdout
        for name in ("kernel", "clock", "wake-up", "lost on CPU", "addfd send", "io uring"):
            self.assertIn(name, shown)

    def test_what_cannot_be_written_is_told_with_status_2(self):
        for words in ([], ["--json"]):
            with open("/dev/full", "w", encoding="ascii") as full:
                run = subprocess.run([SHUNT, "bench", "probe", "--spin-ms", "1", *words], stdout=full, stderr=subprocess.PIPE,
                                     text=True, check=False, timeout=60)
            self.assertEqual((run.returncode, run.stderr), (2, "shunt bench probe: standard output: No space left on device\n"))

    def test_each_cpu_may_be_watched_for_as_long_as_that_was_asked_for(self):
        longest = 60  # seconds, of --spin-ms
        for cpus in (1, 2, 8):
            self.assertGreater(probe.longest(range(cpus), longest * 1000), cpus * longest)
        self.assertEqual(probe.longest(range(512), 1000), probe.longest(range(8), 1000))

    def test_all_cpus_share_a_time_that_has_an_end(self):
        watched = json.loads(subprocess.run([os.path.join(os.environ["BENCH_BUILD"], "probe_machine"), "--spin-ms", "60000",
                                             "--longest-ms", "40"], capture_output=True, text=True, check=True, timeout=60).stdout)
        cpus = os.sched_getaffinity(0)
        self.assertEqual({spin["cpu"] for spin in watched["spin"]}, cpus)
        self.assertEqual({wake["to"] for wake in watched["wake_ups"]}, cpus)
        for spin in watched["spin"]:
            self.assertGreaterEqual(spin["seconds"], 0.04 / len(cpus))

    def test_of_many_cpus_those_that_have_lost_most_are_shown_and_the_rest_in_one_line(self):
        spins = [{"cpu": cpu, "seconds": 0.1, "gaps": 1, "lost_us": cpu * 1000.0, "longest_us": 5.0} for cpu in range(12)]
        shown = probe.lost_lines(spins)
        self.assertEqual([name for name, _ in shown], [f"lost on CPU {cpu}" for cpu in range(4, 12)] + ["lost on 4 others"])
        self.assertTrue(shown[-1][1].startswith("3.00% at most"), shown[-1])
        self.assertEqual(len(probe.lost_lines(spins[:3])), 3)


class Measuring(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.out = os.path.join(self.directory.name, "report")

    def result(self):
        with open(os.path.join(self.out, "results.json"), encoding="utf-8") as file:
            return json.load(file)

    def values(self, arm):
        return self.result()["scenarios"][0]["metrics"][0]["arms"][arm]["values"]

    def measure(self, *words):
        run = bench(*words, "--tiny", "--runs", "1", "--out", self.out)
        if run.returncode == SKIPPED:
            self.skipTest(run.stderr)
        return run

    def test_a_report_is_left(self):
        run = self.measure("floor", "--arms", "native, bare-pin")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(sorted(os.listdir(self.out))[-3:], ["report.html", "report.md", "results.json"])
        self.assertTrue(0 < self.values("native")[0] < self.values("bare-pin")[0])
        self.assertIn("bare-pin", run.stdout)
        self.assertTrue(self.result()["complete"])
        self.assertEqual(self.result()["command"], f"shunt bench floor --arms 'native, bare-pin' --tiny --runs 1 --out {self.out}")
        self.assertIn("warning: --tiny", run.stdout)

    def test_what_was_measured_is_shown_where_it_cannot_be_written(self):
        os.makedirs(os.path.join(self.out, "results.json"))
        run = self.measure("floor", "--arms", "native,bare-pin")
        self.assertEqual((run.returncode, len(re.findall("^p50 .*bare-pin", run.stdout, re.MULTILINE))), (1, 1), run.stdout)
        self.assertNotIn("The report:", run.stdout)
        self.assertRegex(run.stderr.splitlines()[-1], "^shunt bench: the report could not be written: .*results.json")

    def test_a_report_is_left_where_nobody_reads_the_lines(self):
        reading, writing = os.pipe()
        os.close(reading)
        self.addCleanup(os.close, writing)
        run = subprocess.run([SHUNT, "bench", "floor", "--arms", "native", "--tiny", "--runs", "1", "--out", self.out],
                             stdout=writing, stderr=writing, check=False, timeout=100)
        if run.returncode == SKIPPED:
            self.skipTest("no private network")
        self.assertEqual(run.returncode, 0)
        self.assertTrue(self.result()["complete"])

    def test_closed_streams_are_as_good_as_null(self):
        for closed in (">&-", "2>&-", "<&- >&- 2>&-"):
            command = ["sh", "-c", f'exec "$@" {closed}', "_", SHUNT, "bench", "floor", "--arms", "native,shunt-pin", "--tiny",
                       "--runs", "1", "--out", self.out]
            run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
            if run.returncode == SKIPPED:
                self.skipTest("no private network")
            self.assertEqual((run.returncode, "Traceback" in run.stderr), (0, False), run.stderr)
            self.assertIsNotNone(self.values("shunt-pin")[0])
            shutil.rmtree(self.out)
        for words in ([], ["probe", "--spin-ms", "1"], ["compare"]):
            run = subprocess.run(["sh", "-c", 'exec "$@" >&-', "_", SHUNT, "bench", *words, "--help"], capture_output=True, text=True,
                                 check=False, timeout=100)
            self.assertEqual((run.returncode, run.stderr), (0, ""), words)

    def program(self, name, script):
        """The path of a program of this name that is this script."""
        with open(path := os.path.join(self.directory.name, name), "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(script))
        os.chmod(path, 0o755)
        return path

    def need_tun(self):
        """On the stage root's machine lends its user one."""
        if os.getuid() != 0 and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            self.skipTest("this user may not open /dev/net/tun, and so no peer that needs it is started")

    def test_a_peer_that_fails_is_told_with_its_last_lines_and_costs_nobody_else_a_value(self):
        self.need_tun()
        broken = self.program("slirp4netns", "#!/bin/sh\necho there is no tap for you >&2\nexit 3\n")
        run = self.measure("connect", "--peer", f"slirp4netns={broken}", "--arms", "native,slirp4netns,shunt")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(list(self.result()["scenarios"][0]["notes"]), ["slirp4netns"])
        about = self.result()["scenarios"][0]["notes"]["slirp4netns"]
        self.assertEqual(about["state"], "failed")
        self.assertIn("there is no tap for you", "\n".join(about["last_lines"]))
        self.assertIsNotNone(self.values("native")[0])
        self.assertIsNotNone(self.values("shunt")[0])
        if shutil.which("slirp4netns"):
            self.assertEqual(self.result()["environment"]["network below shunt"], "slirp4netns")
        for name in ("report.md", "report.html"):
            with open(os.path.join(self.out, name), encoding="utf-8") as file:
                self.assertIn("there is no tap for you", file.read(), name)
        self.assertIn("slirp4netns: failed", run.stdout)

    def test_below_shunt_is_the_network_on_the_path_of_who_calls_and_not_the_peer(self):
        on_path = self.program("slirp4netns", "#!/bin/sh\nexit 3\n")
        with tempfile.TemporaryDirectory() as nothing, unittest.mock.patch.object(peers, "STAGE_PATH", nothing):
            for path, found in ((nothing, None), (self.directory.name, on_path)):
                with unittest.mock.patch.dict(os.environ, {"PATH": path}):
                    files = stage_link.what_runs_there(os.environ["BENCH_BUILD"], SHUNT, [("slirp4netns", "/bin/false")])
                self.assertEqual((files["peers/slirp4netns"], files.get("below/slirp4netns")), ("/bin/false", found))

    def test_a_shunt_that_fails_is_a_failure(self):
        run = self.measure("floor", "--shunt", "/bin/false", "--arms", "native,shunt-pin,shunt-float")
        self.assertEqual((run.returncode, run.stderr.splitlines()[-1]),
                         (1, "shunt bench: failed: floor: shunt-float, floor: shunt-pin"))
        self.assertEqual(self.result()["scenarios"][0]["notes"]["shunt-pin"]["state"], "failed")
        self.assertIsNotNone(self.values("native")[0])

    def test_another_shunt_is_not_taken_for_the_engine_that_a_program_has_in_it(self):
        other = self.program("shunt", f'#!/bin/sh\nexec {SHUNT} "$@"\n')
        os.chmod(self.directory.name, 0o755)
        run = self.measure("fairness", "handlers", "floor", "--arms", "none,shunt refused,bare refused,native,shunt-pin", "--shunt",
                           other)
        self.assertEqual(run.returncode, 0, run.stderr)
        notes = [one["notes"] for one in self.result()["scenarios"]]
        self.assertEqual([{arm: about["state"] for arm, about in one.items()} for one in notes],
                         [{"none": "absent"}, {"shunt refused": "absent"}, {}])
        self.assertIn("not this shunt", notes[0]["none"]["why"])
        same = self.program("same", "")
        os.remove(same)
        os.symlink(SHUNT, same)
        self.measure("handlers", "--arms", "shunt refused", "--shunt", same)
        self.assertEqual(self.result()["scenarios"][0]["notes"], {})

    def test_a_peer_that_ends_and_leaves_a_process_behind_fails_at_once(self):
        self.need_tun()
        broken = self.program("pasta", "#!/bin/sh\nsleep 1000 &\necho it cannot start >&2\nexit 3\n")
        begin = time.monotonic()
        self.measure("connect", "--arms", "native,pasta", "--peer", f"pasta={broken}")
        self.assertLess(time.monotonic() - begin, 30)
        note = self.result()["scenarios"][0]["notes"]["pasta"]
        self.assertEqual((note["state"], note["why"]), ("failed", "exit status 3: it cannot start"))

    def test_a_peer_that_is_not_here_is_told_as_absent(self):
        absent = next((name for name in ("bypass4netns", "slirp4netns", "pasta") if shutil.which(name) is None), None)
        if absent is None:
            self.skipTest("all networks that connections are measured over are installed here")
        run = self.measure("connect", "--against", absent, "--strict")
        about = self.result()["scenarios"][0]["notes"][absent]
        self.assertEqual((about["state"], run.returncode), ("absent", 0), run.stderr)
        self.assertIn(f"{absent}: absent: ", run.stdout)
        self.assertIn(f"--peer {absent}=PATH", about["why"])

    def test_a_peer_that_the_scenario_has_no_arm_for_is_told(self):
        self.measure("floor", "--against", "haproxy", "--seconds", "0.1")
        self.assertEqual(self.result()["scenarios"][0]["notes"]["haproxy"]["why"], "this scenario has no arm for it")
        self.assertIsNotNone(self.values("shunt-pin")[0])

    def test_a_scenario_that_has_none_of_the_arms_is_told(self):
        run = self.measure("connect", "floor", "--arms", "native-apart, bare-pin")
        self.assertEqual((run.returncode, [set(one["notes"]) for one in self.result()["scenarios"]]), (0, [set(), set()]), run.stderr)
        run = self.measure("connect", "floor", "--arms", "bare-pin, bare-float")
        self.assertEqual(run.returncode, 0, run.stderr)
        connect, floor = self.result()["scenarios"]
        self.assertEqual((connect["name"], connect["runs"], floor["notes"]), ("connect", 0, {}))
        self.assertIn("bare-pin, bare-float: absent: this scenario has no such arm", run.stdout)
        for name in ("report.md", "report.html"):
            with open(os.path.join(self.out, name), encoding="utf-8") as file:
                self.assertIn("this scenario has no such arm", file.read(), name)

    def medians(self, arm):
        """{metric: value} of the only run of the only scenario."""
        return {metric["name"]: metric["arms"][arm]["values"][0] for metric in self.result()["scenarios"][0]["metrics"]}

    def test_what_one_connect_takes_is_counted_on_both_sides(self):
        if not os.path.exists(os.path.join(os.environ["BENCH_BUILD"], "counted")):
            self.skipTest("counted is not built")
        run = self.measure("counted", "--strict")
        self.assertEqual(run.returncode, 0, run.stderr)
        native, shunt = self.medians("native"), self.medians("shunt")
        self.assertIsNone(native["calls of reactors"])
        self.assertGreater(native["CPU of the caller"], 0)
        self.assertTrue(3 <= shunt["calls of reactors"] <= 100, shunt)  # RECV, ADDFD and SEND at least
        self.assertEqual(shunt["heap calls of reactors"], 0)
        self.assertGreater(shunt["switches of the caller"], 0.9)  # it sleeps until it is answered
        for metric in self.result()["scenarios"][0]["metrics"]:
            self.assertEqual(metric["without"] is None, any(arm["values"][0] is not None for arm in metric["arms"].values()), metric)

    def test_a_server_that_dies_costs_the_clients_of_a_service_none_that_was_not_under_way(self):
        run = self.measure("failover", "--arms", "native,services", "--strict")
        self.assertEqual(run.returncode, 0, run.stderr)
        one_for_each_thread = 100 * 8 / 500  # of 500 in a second, eight at a time
        self.assertLessEqual(self.medians("services")["failed"], one_for_each_thread)
        self.assertEqual(self.medians("native")["failed"], 0)

    def test_an_agent_is_measured_with_what_its_profiles_trap(self):
        self.need_tun()
        if not os.path.exists(os.path.join(os.environ["BENCH_BUILD"], "notified")):
            self.skipTest("notified is not built")
        # In the place of that agent, ours: on the stage it lies beside the peers.
        agent = self.program("bypass4netns", """\
            #!/bin/bash
            while [[ $# -gt 0 ]]; do
              case $1 in --socket) socket=$2 ;; --ready-fd) ready=$2 ;; esac
              shift
            done
            exec "$(dirname "$(readlink -f "$0")")/../shunt" agent --socket "$socket" --ready-fd "$ready"
            """)
        run = self.measure("connect", "--peer", f"bypass4netns={agent}", "--arms", "native,bypass4netns")
        self.assertEqual((run.returncode, self.result()["scenarios"][0]["notes"]), (0, {}), run.stderr)
        self.assertGreater(self.values("bypass4netns")[0], self.values("native")[0])

    def test_a_peer_is_found_on_the_path_of_who_calls(self):
        self.program("bypass4netns", "#!/bin/sh\necho this one is it >&2; exit 3\n")
        path = os.pathsep.join([os.environ["PATH"], self.directory.name])
        if shutil.which("bypass4netns"):
            self.skipTest("there is a bypass4netns on PATH anyway")
        with unittest.mock.patch.dict(os.environ, {"PATH": path}):
            self.measure("connect", "--arms", "native,bypass4netns")
        self.assertIn("this one is it", self.result()["scenarios"][0]["notes"]["bypass4netns"]["last_lines"])

    def test_an_agent_that_ends_fails_at_once_with_its_last_words(self):
        if not os.path.exists(os.path.join(os.environ["BENCH_BUILD"], "notified")):
            self.skipTest("notified is not built")
        agent = self.program("bypass4netns", """\
            #!/usr/bin/python3
            import os, socket, sys
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(sys.argv[sys.argv.index("--socket") + 1])
                server.listen()
                os.write(int(sys.argv[sys.argv.index("--ready-fd") + 1]), b"1")
                socket.recv_fds(server.accept()[0], 4096, 1)
            sys.exit("panic: no more of this\\n\\ngoroutine 1 [running]:" + "\\nmain.main()" * 50)
            """)
        begin = time.monotonic()
        self.measure("connect", "--peer", f"bypass4netns={agent}", "--arms", "native,bypass4netns")
        self.assertLess(time.monotonic() - begin, 30)
        note = self.result()["scenarios"][0]["notes"]["bypass4netns"]
        self.assertEqual((note["state"], note["why"], note["last_lines"][0]), (
            "failed", "exit status 125: container: bypass4netns has ended: panic: no more of this", "panic: no more of this"))

    def test_ports_that_nobody_could_move_to_the_host_are_told(self):
        # A shunt without the lock server, which root would start.
        os.chmod(self.directory.name, 0o755)
        shutil.copy(SHUNT, real := os.path.join(self.directory.name, "real"))
        shunt = self.program("shunt", f"""\
            #!/bin/bash
            if [[ $1 == lock-server ]]; then exit 1; fi
            exec {real} "$1" --lock-socket /nonexistent "${{@:2}}"
            """)
        self.measure("throughput", "--shunt", shunt, "--arms", "native,shunt-published")
        note = self.result()["scenarios"][0]["notes"]["shunt-published"]
        self.assertEqual(note["state"], "absent", note)
        self.assertIn("the eBPF lock", note["why"])
        self.assertIsNotNone(self.values("native")[0])

    def signalled(self, number):
        """(exit status, standard output, its stage) of a measurement that gets a signal in its second run."""
        command = [SHUNT, "bench", "floor", "--tiny", "--runs", "100000", "--out", self.out]
        with begun(command) as run:
            heard, stage = [], None
            for line in run.stderr:
                heard.append(line)
                if re.match(r"\d+/", line) and ", run 2 of" in line:
                    stage = stage_of(run.pid)
                    self.assertTrue(runs_there(stage[0]))
                    run.send_signal(number)
                    break
            output, errors = run.communicate(timeout=60)
            if run.returncode == SKIPPED:
                self.skipTest("".join(heard) + errors)
            return run.returncode, output, stage

    def stopped_by(self, number):
        status, output, (namespace, directory) = self.signalled(number)
        self.assertEqual(status, 128 + number)
        self.assertTrue(output.startswith(f"INCOMPLETE: stopped by {signal.Signals(number).name}"), output)
        result = self.result()
        self.assertEqual((result["complete"], result["stopped_by"]), (False, signal.Signals(number).name))
        self.assertIsNotNone(self.values("native")[0])
        self.assertFalse(runs_there(namespace))
        self.assertFalse(os.path.exists(directory))

    def test_an_interrupt_leaves_a_report_and_nothing_else(self):
        self.stopped_by(signal.SIGINT)

    def test_a_termination_leaves_a_report_and_nothing_else(self):
        self.stopped_by(signal.SIGTERM)

    def test_the_stage_of_who_was_killed_ends(self):
        status, _, (namespace, directory) = self.signalled(signal.SIGKILL)
        self.assertEqual(status, -signal.SIGKILL)
        deadline = time.monotonic() + 30
        while (runs_there(namespace) or os.path.exists(directory)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(runs_there(namespace))
        self.assertFalse(os.path.exists(directory))

    def stopped_early(self, number, is_time):
        """(exit status, what it said) of a measurement whose only one never ends, which gets a signal when it is time."""
        self.need_tun()
        peer = self.program("slirp4netns", "#!/bin/sh\nexec sleep 10000\n")
        command = [SHUNT, "bench", "connect", "--arms", "slirp4netns", "--peer", f"slirp4netns={peer}", "--out", self.out]
        with begun(command) as run:
            heard = is_time(run)
            run.send_signal(number)
            output, errors = run.communicate(timeout=60)
        if run.returncode == SKIPPED:
            self.skipTest(heard + errors)
        self.assertEqual(output, "")
        return run.returncode, heard + errors

    def probes(self, run):
        """Until it looks at the machine."""
        while not any("probe_machine" in command_line(pid) for pid in children(run.pid)):
            self.assertIsNone(run.poll(), "it has ended")
        return ""

    def test_who_is_stopped_before_there_is_a_measurement_leaves_no_report_and_says_so(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for is_time in (self.probes, lambda run: run.stderr.readline()):
                status, said = self.stopped_early(number, is_time)
                self.assertEqual(status, 128 + number)
                words = [line for line in said.splitlines() if not re.match(r"\d+/", line)]
                self.assertEqual(words, [f"shunt bench: stopped by {signal.Signals(number).name} before the first measurement was "
                                         "over: there is no report"])
                self.assertFalse(os.path.exists(self.out))

    def test_whoever_looks_at_the_machine_ends_with_who_wants_to_know(self):
        with subprocess.Popen([SHUNT, "bench", "probe", "--spin-ms", "60000"], stdout=subprocess.DEVNULL) as run:
            self.probes(run)
            watcher, = children(run.pid)
            ended = os.pidfd_open(int(watcher))
            self.addCleanup(os.close, ended)
            run.kill()
            self.assertTrue(select.select([ended], [], [], 30)[0], "probe_machine goes on")

    def test_who_may_open_no_tun_device_measures_shunt_all_the_same(self):
        if os.getuid() != 0:
            self.skipTest("only root can take it away")
        closed = os.path.join(self.directory.name, "tun")
        os.close(os.open(closed, os.O_CREAT, 0o600))
        hidden = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'mount --bind {closed} /dev/net/tun && exec "$@"',
                  "_", "setpriv", "--reuid", "7331", "--regid", "7331", "--clear-groups"]
        with tempfile.TemporaryDirectory() as home:
            os.chmod(home, 0o777)
            command = [SHUNT, "bench", "untrapped", "floor", "notify", "connect", "--tiny", "--runs", "1", "--strict", "--out",
                       os.path.join(home, "report")]
            run = subprocess.run([*hidden, *command], capture_output=True, text=True, check=False, timeout=100, cwd=home)
            if run.returncode in (SKIPPED, 126):  # no such namespace, or a build that is closed to others
                self.skipTest(run.stderr)
            self.assertEqual(run.returncode, 0, run.stderr + run.stdout)
            with open(os.path.join(home, "report", "results.json"), encoding="utf-8") as file:
                made = json.load(file)
        self.assertEqual(made["environment"]["network below shunt"], "none")
        for scenario in made["scenarios"]:
            arms = scenario["metrics"][0]["arms"]
            accelerated = [arm for arm in arms if arm.startswith("shunt") and arm != "shunt-unaccelerated"]
            self.assertTrue(all(arms[arm]["values"][0] for arm in accelerated), scenario["name"])
        self.assertIn("there is no network", made["scenarios"][3]["notes"]["shunt-unaccelerated"]["why"])
        self.assertIn("may not open /dev/net/tun", made["scenarios"][3]["notes"]["slirp4netns"]["why"])
        self.assertEqual(made["scenarios"][3]["notes"]["pasta"]["state"], "absent")


class Beginning(unittest.TestCase):
    def test_a_stage_that_is_stopped_while_it_begins_has_ended(self):
        links = []

        def stopped(link):
            links.append(link)
            raise course.Stopped("SIGINT")

        with unittest.mock.patch.object(stage_link.StageLink, "answer", stopped), self.assertRaises(course.Stopped):
            stage_link.StageLink(False, os.environ["BENCH_BUILD"], SHUNT, [], {"net": "none"})
        self.assertIsNotNone(links[0].process.returncode)


class Installed(unittest.TestCase):
    def test_what_is_installed_measures_without_the_source(self):
        build = os.path.dirname(os.environ["BENCH_BUILD"])
        with tempfile.TemporaryDirectory() as directory:
            done = subprocess.run(["cmake", "--install", build, "--prefix", directory], capture_output=True, text=True,
                                  check=False, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            run = subprocess.run([os.path.join(directory, "bin/shunt"), "bench", "floor", "--tiny", "--runs", "1", "--strict"],
                                 capture_output=True, text=True, check=False, timeout=60, cwd=directory)
            if run.returncode == SKIPPED:
                self.skipTest(run.stderr)
            self.assertEqual(run.returncode, 0, run.stderr)
            reports = glob.glob(os.path.join(directory, "shunt-bench-*", "report.html"))
            self.assertEqual(len(reports), 1, run.stdout)
            with open(reports[0].replace(".html", ".md"), encoding="utf-8") as file:
                self.assertIn("| p50 | shunt-pin |", file.read())
            installed = set(os.listdir(os.path.join(directory, "libexec/shunt/bench")))
            self.assertFalse([name for name in installed if name.endswith("_test.py")])
            built = {os.path.basename(path) for path in places.measuring_programs(os.environ["BENCH_BUILD"])}
            self.assertLessEqual(built, installed)


if __name__ == "__main__":
    unittest.main(verbosity=2)  # with the reasons of what is skipped
