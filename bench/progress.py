# SPDX-License-Identifier: Apache-2.0
"""How far a measurement is: a bar with the time that is left on a terminal, plain lines elsewhere."""

import shutil
import sys

BAR = 24


def left(seconds):
    """The remaining time in words."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min left"


class Progress:
    """Writes to `stream`; each line replaces the former one if that is a terminal."""

    def __init__(self, stream=None, columns=lambda: shutil.get_terminal_size().columns):
        self.stream = stream or sys.stderr
        self.columns = columns
        self.on_terminal = self.stream.isatty()

    def __call__(self, done, to_do, seconds, words):
        about = ", ".join(filter(None, [left(seconds), words]))
        if not self.on_terminal:
            self.stream.write(f"{done}/{done + to_do} {about}\n")
        else:
            share = done / max(done + to_do, 1)
            full = int(BAR * share)
            line = f"[{'#' * full}{'-' * (BAR - full)}] {100 * share:3.0f}% {about}"
            self.stream.write(f"\r\x1b[K{line[:self.columns() - 1]}")
        self.stream.flush()

    def end(self):
        if self.on_terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
