# SPDX-License-Identifier: Apache-2.0
"""This side of the stage: packs what runs there, starts it, asks it (on_stage.py), and takes it away again."""

import glob
import io
import json
import os
import subprocess
import tarfile

import peers
import places

SECONDS_TO_END = 15
# On the stage: unpacks descriptor $0 into a directory that nobody sees outside, and executes what is in there with options $1.
UNPACK = """mkdir -m 755 "$TMPDIR/bench" && cd "$TMPDIR/bench" && tar --extract --preserve-permissions --no-same-owner <&"$0" &&
  eval "exec $0<&-" && exec /usr/bin/python3 bench/on_stage.py "$PWD" "$1" """
# Lends the lock by $0 until its input ends, by our death if by nothing else, and leaves nothing behind. Says where.
LEND = """trap '' PIPE
  directory=$(mktemp --directory /tmp/shunt-bench.XXXXXX) && chmod 755 "$directory" || exit
  trap 'rm -r "$directory"' EXIT
  socket=$directory/lock.sock
  setpriv --pdeathsig KILL "$0" lock-server --socket "$socket" </dev/null >/dev/null 2>&1 &
  server=$!
  disown
  for _ in {1..500}; do
    if [[ -e $socket ]] || ! kill -0 "$server" 2>/dev/null; then break; fi
    sleep 0.01
  done
  echo "$socket" 2>/dev/null  # who asks may have gone
  read -r
  kill -KILL "$server" 2>/dev/null """


class NoStage(Exception):
    """It did not start, or it ended; `status` is its exit status."""

    def __init__(self, status):
        super().__init__(f"the stage ended with exit status {status}")
        self.status = status


def what_runs_there(programs, shunt, given_peers):
    """{path on the stage: path here}: copies, as a clone or a peer may lie in a closed home, and users there are others."""
    here = [*glob.glob(os.path.join(places.HERE, "*.py")), os.path.join(places.HERE, "container"),
            *glob.glob(os.path.join(places.HERE, "scenarios", "*.py"))]
    files = {os.path.join("bench", os.path.relpath(path, places.HERE)): path for path in here}
    files |= {os.path.basename(path): path for path in places.measuring_programs(programs)}
    if os.path.exists(shunt):
        files["shunt"] = shunt
    return files | peers.laid_out(given_peers, "peers") | peers.laid_out(peers.below_shunt(), "below")


def readable_by_all(member):
    member.mode |= 0o755 if member.mode & 0o100 else 0o644
    return member


def packed(files):
    """A descriptor of an archive in memory. On no disk there is anything that somebody who is killed would leave."""
    archive = os.fdopen(os.memfd_create("stage"), "w+b")
    with tarfile.open(fileobj=archive, mode="w") as pack:
        for name, path in files.items():
            pack.add(os.path.realpath(path), name, filter=readable_by_all)
        for name, mode in (("tmp", 0o1777), ("peers", 0o755), ("below", 0o755)):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            pack.addfile(directory, io.BytesIO())
    archive.flush()
    archive.seek(0)
    return archive


class LentLock:
    """`shunt lock-server`, which only root can be, for the user on the stage: published ports move to the host by it. Where it
    does not start the arms that need it say so."""

    def __init__(self, shunt):
        self.process = subprocess.Popen(["/bin/bash", "-c", LEND, shunt], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        start_new_session=True)
        self.socket = self.process.stdout.readline().strip()

    def close(self):
        self.process.communicate()


class StageLink:
    """One stage. It has a session of its own: an interrupt from the terminal is for us, who then end it in order. If we are
    killed it ends as well, for want of questions, and takes along what is on it."""

    def __init__(self, as_root, programs, shunt, given_peers, options):
        self.lock = LentLock(shunt) if os.getuid() == 0 and not as_root else None
        options = {**options, "lock": self.lock.socket if self.lock else ""}
        with packed(what_runs_there(programs, shunt, given_peers)) as archive:
            command = [os.path.join(places.HERE, "stage"), *(["--root"] if as_root else []), "/bin/bash", "-c", UNPACK,
                       str(archive.fileno()), json.dumps(options)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/tmp",
                                            pass_fds=[archive.fileno()], start_new_session=True)
        try:
            self.about = self.answer()
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
        if self.lock:
            self.lock.close()
