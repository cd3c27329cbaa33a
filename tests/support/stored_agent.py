# SPDX-License-Identifier: Apache-2.0
"""StoredAgent: an agent whose descriptors a service manager keeps (descriptor_store.py), so that it can be killed and
started again; its log goes to a file."""

import os
import signal

from descriptor_store import PATIENCE, DescriptorStore


class StoredAgent:
    def __init__(self, test, program, folder, *options):
        """Starts it, and has `test` stop it."""
        self.socket = os.path.join(folder, "agent.sock")
        self.command = [program, "agent", "--socket", self.socket, "--fd-store", *options]
        self.store = DescriptorStore(folder)
        # Then what it was bound to is free again.
        test.addCleanup(lambda: [os.close(fd) for _, fd in self.store.kept])
        self.log = open(os.path.join(folder, "log"), "w+", encoding="utf-8", errors="replace")
        test.addCleanup(self.log.close)
        self.process = None
        self.start()
        test.addCleanup(self.end)

    def start(self):
        self.process = self.store.start(self.command, self.log)
        if not self.store.ready.acquire(timeout=PATIENCE):
            self.end(signal.SIGKILL)
            raise AssertionError("the agent is not ready: " + self.text())

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(PATIENCE)

    def text(self):
        """The end of its log."""
        self.log.flush()
        self.log.seek(0)
        return self.log.read()[-3000:]
