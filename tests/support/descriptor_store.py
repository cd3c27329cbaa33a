# SPDX-License-Identifier: Apache-2.0
"""DescriptorStore: a service manager as far as tests of the agent need one.

It takes what a service tells ($NOTIFY_SOCKET), keeps the descriptors that come with it (FDSTORE), and passes them to the
next one that it starts ($LISTEN_FDS), as systemd does on a restart.
"""

import array
import os
import socket
import subprocess
import threading

PATIENCE = 120  # seconds; nothing here takes one


class DescriptorStore:
    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.kept = []  # (name, descriptor), in the order in which they came
        self.ready = threading.Semaphore(0)
        self.settled = threading.Semaphore(0)
        self.lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            data, control, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4 * 64))
            fds = array.array("i")
            for _, _, payload in control:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            for fd in fds:
                os.set_inheritable(fd, False)
            fields = dict(line.split("=", 1) for line in data.decode().splitlines() if "=" in line)
            with self.lock:
                if fields.get("FDSTORE") == "1":
                    self.kept += [(fields["FDNAME"], fd) for fd in fds]
                if fields.get("FDSTOREREMOVE") == "1":
                    for _, fd in [one for one in self.kept if one[0] == fields["FDNAME"]]:
                        os.close(fd)
                    self.kept = [one for one in self.kept if one[0] != fields["FDNAME"]]
            if fields.get("READY") == "1":
                self.ready.release()
            if "SETTLE" in fields:
                self.settled.release()

    def settle(self):
        """Returns when everything that was told before has been heard."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"SETTLE=1", self.path)
        assert self.settled.acquire(timeout=PATIENCE)

    def start(self, command, output=None):
        """Starts a service with what is kept. self.ready says when it is ready."""
        self.settle()
        with self.lock:
            kept = list(self.kept)

        def hand_over():
            above = 600  # so that moving them to 3 and on overwrites none of them
            moved = [os.dup2(fd, above + i) for i, (_, fd) in enumerate(kept)]
            for i, fd in enumerate(moved):
                os.dup2(fd, 3 + i)
            os.closerange(above, above + len(moved))

        environment = {**os.environ, "NOTIFY_SOCKET": self.path, "LISTEN_FDS": str(len(kept)),
                       "LISTEN_FDNAMES": ":".join(name for name, _ in kept)}
        # By a shell: its pid, which the service takes over, is known in the child only.
        script = 'export LISTEN_PID=$$; exec "$@"'
        return subprocess.Popen(["/bin/sh", "-c", script, "sh", *command], env=environment, stdin=subprocess.DEVNULL,
                                stdout=output, stderr=output, preexec_fn=hand_over, close_fds=False)
