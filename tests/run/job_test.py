#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`shunt run` under an interactive shell with job control, in a terminal of its own.

    tests/support/arena [--user] -- tests/run/job_test.py SHUNT [CLASS[.TEST]...]
"""

import os
import pty
import re
import select
import signal
import tempfile
import termios
import time
import unittest

from shunt_run import SHUNT, PYTHON, DEADLINE, ACCELERATED, until, processes, descendants, alive, main


class Shell:
    """An interactive bash with job control in a terminal of its own."""

    def __init__(self, prompt="PROMPT> "):
        self.prompt = prompt
        self.text = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            # Before bash looks: it gives the terminal back to itself as it found it, after every job.
            attributes = termios.tcgetattr(0)
            attributes[3] &= ~termios.ECHO
            termios.tcsetattr(0, termios.TCSANOW, attributes)
            environment = dict(os.environ, PS1=prompt, TERM="dumb", HISTFILE="/dev/null")
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        self.expect(prompt)

    def send(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern):
        """Reads up to the regular expression, and returns what came before and with it."""
        end = time.monotonic() + DEADLINE
        while not (match := re.search(pattern, self.text)):
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            if not ready:
                family = {pid: state for pid, state in processes().items() if pid in descendants(self.pid)}
                raise AssertionError(f"waited for {pattern!r}, got {self.text!r}; foreground {self.foreground()}: {family}")
            self.text += os.read(self.master, 4096).decode().replace("\r", "")
        before, self.text = self.text[: match.end()], self.text[match.end() :]
        return before

    def command(self, text):
        """Runs a command line to its end; returns what it printed."""
        self.send(text + "\n")
        return self.expect(self.prompt)[: -len(self.prompt)]

    def foreground(self):
        """The processes of the terminal's foreground group."""
        return os.tcgetpgrp(self.master)

    def close(self):
        os.close(self.master)
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)


def terminal_of(pid):
    """The device number of its controlling terminal; 0: it has none."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[4])


class Job(unittest.TestCase):
    def setUp(self):
        self.run_ = f"{SHUNT} run --net none{'' if ACCELERATED else ' --no-accelerate'} --"
        self.shell = Shell()
        self.addCleanup(self.shell.close)
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)

    def script(self, text):
        path = self.scratch.name + "/script"
        with open(path, "w") as file:
            file.write(text)
        return path

    def test_reads_from_and_writes_to_the_terminal(self):
        self.shell.send(f"{self.run_} sh -c 'echo ready; read x; echo got $x'\n")
        self.shell.expect("ready\n")
        self.shell.send("hello\n")
        self.shell.expect("got hello\n" + self.shell.prompt)

    def test_interrupt_kills_the_command(self):
        self.shell.send(f"{self.run_} sh -c 'echo ready; exec cat'\n")
        self.shell.expect("ready\n")
        self.shell.send("\x03")
        self.shell.expect(self.shell.prompt)
        self.assertEqual(self.shell.command("echo $?"), "130\n")

    def test_interrupt_reaches_a_command_once_and_only_if_it_listens(self):
        code = ("import signal,sys; signal.pthread_sigmask(signal.SIG_BLOCK,[2,15]); print('ready',flush=True);"
                "print(signal.sigwait([2,15])); print('twice' if signal.sigtimedwait([2],0.3) else 'once')")
        for wrap in ("{}", "{} | cat", "sh -c '{}; true'"):
            line = wrap.format(f"{self.run_} {PYTHON} {self.script(code)}")
            self.shell.send(line + "\n")
            self.shell.expect("ready\n")
            self.shell.send("\x03")
            self.assertIn("once", self.shell.expect(self.shell.prompt), line)

    def test_interrupt_ends_a_script_around_us_as_it_would_without_us(self):
        self.shell.send(f"bash -c '{self.run_} sh -c \"echo ready; exec cat\"; echo NOT REACHED'\n")
        self.shell.expect("ready\n")
        self.shell.send("\x03")
        self.shell.expect(self.shell.prompt)

    @unittest.skipUnless(ACCELERATED, "there is no engine")
    def test_the_engine_is_in_our_session_without_its_terminal(self):
        # Engine and command are of one group to the scheduler, but nobody can type into the terminal from the engine.
        self.shell.send(f"{self.run_} sh -c 'echo ready; read x'\n")
        self.shell.expect("ready\n")
        family = descendants(self.shell.pid)
        names = {name: pid for pid, (_, _, name) in processes().items() if pid in family}
        session = os.getsid(self.shell.pid)
        for name in ("shunt-starter", "shunt-engine"):
            with self.subTest(name):
                self.assertEqual(os.getsid(names[name]), session)
                self.assertEqual(os.getpgid(names[name]), names["shunt-starter"])
                self.assertEqual(terminal_of(names[name]), 0)
        self.assertNotEqual(terminal_of(names["sh"]), 0)
        self.shell.send("\n")
        self.shell.expect(self.shell.prompt)

    def states(self):
        """Of the front (the eldest that is called shunt) and of the command, a python3."""
        family = descendants(self.shell.pid)
        return {name: state for pid, (_, state, name) in sorted(processes().items(), reverse=True)
                if pid in family and name in ("shunt", "python3")}

    def test_suspend_and_resume(self):
        # Says when it goes on: ^Z before the shell has handed the terminal over would be the shell's own.
        code = """
import os, select, signal, sys
read, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write)
signal.signal(signal.SIGCONT, lambda *_: None)
print("ready", flush=True)
while True:
    if read in select.select([read, 0], [], [])[0]:
        os.read(read, 100)
        print("continued", flush=True)
    else:
        print("got", sys.stdin.readline().strip())
        break
"""
        command = f"{self.run_} {PYTHON} {self.script(code)}"
        for line in (command, command + " | cat", f"sh -c '{command}; true'"):
            for _ in range(5):
                self.shell.send(line + "\n")
                self.shell.expect("ready\n")
                for _ in range(3):
                    self.shell.send("\x1a")
                    self.shell.expect("Stopped")
                    self.shell.expect(self.shell.prompt)
                    # Those whom the shell does not wait for itself may be later than its prompt, natively, too.
                    until(lambda: self.states() == {"shunt": "T", "python3": "T"}, "front and command stop")
                    self.assertIn("Stopped", self.shell.command("jobs"))
                    self.shell.send("fg\n")
                    self.shell.expect("continued\n")
                self.shell.send("hello\n")
                self.shell.expect("got hello\n")
                self.assertNotIn("Stopped", self.shell.expect(self.shell.prompt))
                self.assertEqual(self.shell.command("jobs"), "")

    def test_a_background_job_that_reads_stops_and_can_be_brought_back(self):
        self.shell.send(f"{self.run_} sh -c 'read x; echo got $x' &\n")
        self.shell.expect(self.shell.prompt)
        until(lambda: "Stopped" in self.shell.command("jobs"), "the job stops")
        self.shell.send("fg\n")
        self.shell.expect("\n")
        self.shell.send("hello\n")
        self.shell.expect("got hello\n" + self.shell.prompt)

    def test_a_background_job_runs_on(self):
        self.shell.send(f"{self.run_} sh -c 'echo ready; exec cat' \n")
        self.shell.expect("ready\n")
        self.shell.send("\x1a")
        self.shell.expect("Stopped")
        self.shell.expect(self.shell.prompt)
        # cat reads the terminal: in the background it stops again, at once.
        self.shell.command("bg")
        until(lambda: "Stopped" in self.shell.command("jobs"), "cat stops")
        self.shell.command("kill %1; kill -CONT %1; wait %1")
        until(lambda: self.shell.command("jobs") == "", "the job ends")

    def test_a_shell_inside_has_job_control(self):
        for line, prompt in ((f"{self.run_} env PS1='INNER> ' bash --norc --noprofile --noediting -i", "INNER> "),
                             (f"{self.run_} env PS1='INNER> ' sh -i", "INNER> "),
                             (f"bash -c '{self.run_} env PS1=\"INNER> \" bash --norc --noprofile --noediting -i; true'",
                              "INNER> ")):
            self.shell.send(line + "\n")
            started = self.shell.expect(prompt)
            self.assertNotIn("job control", started)
            self.shell.send("cat\n")
            self.shell.send("there\n")
            self.shell.expect("there\n")
            self.shell.send("\x1a")
            self.shell.expect("Stopped")
            self.shell.expect(prompt)
            self.shell.send("fg\n")
            self.shell.expect("cat\n")
            self.shell.send("again\n")
            self.shell.expect("again\n")
            self.shell.send("\x03")
            self.shell.expect(prompt)
            self.shell.send("exit 3\n")
            ended = self.shell.expect(self.shell.prompt)
            self.assertNotIn("annot", ended, line)
            self.assertEqual(self.shell.command("echo still here"), "still here\n")

    def test_a_script_has_its_terminal_back_after_a_shell_inside(self):
        path = self.script(f"{self.run_} bash --norc --noprofile --noediting -i\nread x\necho script got $x\n")
        self.shell.send(f"PS1='INNER> ' bash {path}\n")
        self.shell.expect("INNER> |bash-[0-9.]*# |[$#] $")
        self.shell.send("exit\n")
        self.shell.expect("exit\n")
        self.shell.send("hello\n")
        self.shell.expect("script got hello\n" + self.shell.prompt)

    def test_a_resized_terminal_is_announced(self):
        code = ("import signal; signal.pthread_sigmask(signal.SIG_BLOCK,[signal.SIGWINCH]); print('ready',flush=True);"
                "print('resized', signal.sigtimedwait([signal.SIGWINCH], 20) is not None)")
        self.shell.send(f"{self.run_} {PYTHON} {self.script(code)}\n")
        self.shell.expect("ready\n")
        termios.tcsetwinsize(self.shell.master, (40, 100))
        self.shell.expect("resized True\n" + self.shell.prompt)

    def test_hanging_up_ends_everything(self):
        self.shell.send(f"{self.run_} sh -c 'echo ready; exec cat'\n")
        self.shell.expect("ready\n")
        family = descendants(self.shell.pid) - {self.shell.pid}
        self.assertGreaterEqual(len(family), 4)
        os.close(self.shell.master)
        self.shell.master = os.open("/dev/null", os.O_RDONLY)
        until(lambda: not alive(family), "all end")


if __name__ == "__main__":
    main()
