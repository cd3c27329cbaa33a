# SPDX-License-Identifier: Apache-2.0
"""The course of a measurement: which arm when, what came of it, and who has failed too often to be tried again."""

import sys

from scenarios import SCENARIOS
from scenarios.stage import Failed, Stage, Unavailable

FAILURES_TO_GIVE_UP = 2


def progress(text):
    """One line that is rewritten on a terminal; nothing elsewhere but the line itself."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
    elif text:
        sys.stderr.write(text + "\n")
    sys.stderr.flush()


def measure_scenario(arguments, name, stage):
    scenario = SCENARIOS[name](stage)
    arms = [arm for arm in scenario.arms if not arguments.arms or arm in arguments.arms.split(",")]
    values = {arm: {metric: [] for metric in scenario.metrics} for arm in arms}
    notes, failures, failed = {}, dict.fromkeys(arms, 0), []
    scenario.prepare()
    for run in range(arguments.runs):
        for arm in arms:
            measured = {}
            if failures[arm] < FAILURES_TO_GIVE_UP:
                progress(f"{name}: run {run + 1} of {arguments.runs}: {arm}")
                try:
                    measured = scenario.measure(arm)
                except Unavailable as error:
                    notes[arm], failures[arm] = f"not tried: {error}", FAILURES_TO_GIVE_UP
                except Failed as error:
                    notes[arm] = f"failed: {error}"
                    failures[arm] += 1
                    failed.append(arm)
            for metric in scenario.metrics:
                values[arm][metric].append(measured.get(metric))
    progress("")
    stage.stop_servers()
    metrics = [{"name": metric, "unit": unit, "better": better,
                "arms": {arm: {"base": scenario.base(arm), "values": values[arm][metric]} for arm in arms}}
               for metric, (unit, better) in scenario.metrics.items()]
    return {"name": name, "title": scenario.title, "runs": arguments.runs, "metrics": metrics, "notes": notes,
            "failed": failed}


def measure(arguments):
    stage = Stage(arguments)
    return [measure_scenario(arguments, name, stage) for name in arguments.scenario]
