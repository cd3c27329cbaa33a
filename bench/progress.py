# SPDX-License-Identifier: Apache-2.0
"""How far a measurement is: a bar with the time that is left on a terminal, plain lines elsewhere."""

import os
import shutil
import sys

BAR, SHORTEST_BAR = 24, 6


def left(seconds):
    """The remaining time in words."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min left"


def bar(share, columns):
    """[###---], of less than half of the line; "" where that is too short for one."""
    width = min(BAR, columns * 2 // 5)
    full = int(width * share)
    return f"[{'#' * full}{'-' * (width - full)}] " if width >= SHORTEST_BAR else ""


def replace_closed_streams():
    """Whoever closed standard input, output or error meant /dev/null. Before any file is opened, which would be in its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8"))


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
            share, columns = done / max(done + to_do, 1), self.columns()
            drawn, percent = bar(share, columns), f"{100 * share:3.0f}%"
            if len(f"{drawn}{percent} {left(seconds)}") >= columns:
                drawn = ""
            line = f"{drawn}{percent} {about}"
            say(self.stream, f"\r\x1b[K{line[:columns - 1]}")

    def end(self):
        if self.on_terminal:
            say(self.stream, "\r\x1b[K")
