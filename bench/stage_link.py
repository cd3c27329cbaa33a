# SPDX-License-Identifier: Apache-2.0
"""This side of the stage: lays out what runs there, starts it, asks it (on_stage.py), and takes it away again."""

import glob
import json
import os
import shutil
import subprocess
import tempfile

import peers
import places

SECONDS_TO_END = 15


class NoStage(Exception):
    """It did not start, or it ended; `status` is its exit status."""

    def __init__(self, status):
        super().__init__(f"the stage ended with exit status {status}")
        self.status = status


def lay_out(directory, programs, shunt, given_peers):
    """Copies what runs there to a place that every user can read: a clone may lie in a closed home."""
    bench = os.path.join(directory, "bench")
    os.mkdir(bench)
    for path in [*glob.glob(os.path.join(places.HERE, "*.py")), os.path.join(places.HERE, "container")]:
        shutil.copy(path, bench)
    shutil.copytree(os.path.join(places.HERE, "scenarios"), os.path.join(bench, "scenarios"),
                    ignore=shutil.ignore_patterns("__pycache__"))
    for path in places.measuring_programs(programs):
        shutil.copy(path, directory)
    if os.path.exists(shunt):
        shutil.copy(shunt, os.path.join(directory, "shunt"))
    peers.lay_out(given_peers, os.path.join(directory, "peers"))
    os.mkdir(os.path.join(directory, "tmp"))
    subprocess.run(["chmod", "-R", "a+rX", directory], check=True)
    os.chmod(os.path.join(directory, "tmp"), 0o1777)


class StageLink:
    """One stage. It has a session of its own: an interrupt from the terminal is for us, who then end it in order."""

    def __init__(self, as_root, programs, shunt, given_peers, options):
        self.directory = tempfile.TemporaryDirectory(prefix="shunt-bench.", dir="/tmp", ignore_cleanup_errors=True)
        place = self.directory.name
        lay_out(place, programs, shunt, given_peers)
        command = [os.path.join(places.HERE, "stage"), *(["--root"] if as_root else []), "/usr/bin/python3",
                   os.path.join(place, "bench", "on_stage.py"), place, json.dumps(options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/tmp",
                                        start_new_session=True)
        try:
            self.answer()
        except BaseException:  # somebody stops us while it begins
            self.close()
            raise

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.close()
            raise NoStage(status)
        return json.loads(line)

    def ask(self, scenario, arm):
        self.process.stdin.write(json.dumps({"scenario": scenario, "arm": arm}) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        """Ends what runs there at once; nothing of it is left when this returns."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its children die with it: they have a pid namespace of their own
            self.process.wait()
        self.process.stdout.close()
        self.directory.cleanup()
