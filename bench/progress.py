# SPDX-License-Identifier: Apache-2.0
"""How far a measurement is: a bar with the time that is left on a terminal, plain lines elsewhere."""

import os
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


def say(stream, text):
    """Writes at once, and nothing any more where nobody reads (a pipe, a terminal that is gone): the report is not lost for that."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Progress:
    """Writes to `stream`; each line replaces the former one if that is a terminal."""

    def __init__(self, stream=None, columns=lambda: shutil.get_terminal_size().columns):
        self.stream = stream or sys.stderr
        self.columns = columns
        self.on_terminal = self.stream.isatty()

    def __call__(self, done, to_do, seconds, words):
        about = ", ".join(filter(None, [left(seconds), words]))
        if not self.on_terminal:
            say(self.stream, f"{done}/{done + to_do} {about}\n")
        else:
            share = done / max(done + to_do, 1)
            full = int(BAR * share)
            line = f"[{'#' * full}{'-' * (BAR - full)}] {100 * share:3.0f}% {about}"
            say(self.stream, f"\r\x1b[K{line[:self.columns() - 1]}")

    def end(self):
        if self.on_terminal:
            say(self.stream, "\r\x1b[K")
