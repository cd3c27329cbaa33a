# SPDX-License-Identifier: Apache-2.0
"""Writes a result to its directory: results.json, report.md, report.html, and the pictures as files of their own."""

import contextlib
import json
import os
import re
import tempfile

import bars
import page
import picture
import report
import results


def write(path, text):
    """At once or not at all: whoever reads it meanwhile sees the former one."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def why_not(directory):
    """Why no report can be left there, tried before hours of measuring; None: it can. Nothing is left of the trial."""
    if not directory:
        return "it names no directory"
    missing, there = [], os.path.abspath(directory)
    while not os.path.lexists(there):
        missing.append(there)
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        return f"{there} is no directory"
    made = []
    try:
        for path in missing[::-1]:
            os.mkdir(path)
            made.append(path)
        with tempfile.NamedTemporaryFile(dir=directory):
            return None
    except OSError as error:
        return f"nothing can be written to {directory}: {error.strerror}"
    finally:
        for path in made[::-1]:
            with contextlib.suppress(OSError):  # somebody has put something there
                os.rmdir(path)


def as_json(result):
    """One line for each list of numbers: they are long, and nobody reads them by ten."""
    text = json.dumps(result, indent=1)
    return re.sub(r"\[[-\d\s.,eEnul+]*\]", lambda numbers: " ".join(numbers[0].split()).replace("[ ", "[").replace(" ]", "]"),
                  text) + "\n"


def drawn(scenario):
    """[(file's name, what it shows, SVG)]; none of a scenario that has not begun."""
    if not scenario["runs"]:
        return []
    pictures = [(f"{scenario['name']}.svg", f"{scenario['name']}: medians", picture.scenario_picture(scenario))]
    distributions = picture.distribution_picture(scenario)
    if distributions:
        pictures.append((f"{scenario['name']}-latency.svg", f"{scenario['name']}: distributions", distributions))
    return pictures


def as_markdown(result, pictures):
    """report.md: what was measured, and which bars that reaches."""
    reached = bars.markdown(result)
    return report.markdown(result, pictures) + (f"\n## Bars\n\n{reached}" if reached else "")


def texts_of(result):
    """{file's name: text} of all but the page."""
    pictures = {scenario["name"]: drawn(scenario) for scenario in result["scenarios"]}
    named = {scenario: [(name, shows) for name, shows, _ in several] for scenario, several in pictures.items()}
    files = {"results.json": as_json(result), "report.md": as_markdown(result, named)}
    return files | {name: svg for several in pictures.values() for name, _, svg in several}


def pictures_of_former(directory):
    """The names of those that the report in this directory says are its own. There may be anything instead of one."""
    try:
        former = results.read(directory, texts_of)
    except results.Unusable:
        return []
    return [name for scenario in former["scenarios"] for name, _, _ in drawn(scenario)]


def write_all(result, directory):
    """An older report there is replaced, with its pictures."""
    os.makedirs(directory, exist_ok=True)
    former, files = pictures_of_former(directory), texts_of(result)
    for name, text in files.items():
        write(os.path.join(directory, name), text)
    for name in set(former) - set(files):
        with contextlib.suppress(OSError):  # gone, or none of ours
            os.remove(os.path.join(directory, name))
    inside = {scenario["name"]: [svg for _, _, svg in drawn(scenario)] for scenario in result["scenarios"]}
    write(os.path.join(directory, "report.html"), page.html(result, inside))
