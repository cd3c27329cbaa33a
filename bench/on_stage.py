# SPDX-License-Identifier: Apache-2.0
"""What runs on the stage: measures what it is asked for, one line of JSON after the other, and ends when nobody asks.

    on_stage.py DIRECTORY OPTIONS       OPTIONS: JSON of what bench/run was told and scenarios use

Asked: {"scenario": NAME, "arm": ARM}. Answered: {"state": "measured", "values", "overheads", "distributions", "without"}, with
"disturbed", a sentence, when something of the benchmark's own doing is in the values, or connections are not; or
{"state": "absent" or "failed", "why", "last_lines"}. The end of its standard input ends it at any moment, in the middle of a
measurement, too: the namespace that the stage has made then takes everything along that runs in it.
"""

import argparse
import json
import os
import queue
import signal
import sys
import tempfile
import threading
import traceback

sys.dont_write_bytecode = True
from course import ABSENT, FAILED, MEASURED  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402
from scenarios.stage import LAST_LINES, Failed, Stage, Unavailable  # noqa: E402


def full_queues():
    """How often a connection has met a server in this network that had accepted none for so long that its queue was full."""
    with open("/proc/net/netstat", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("TcpExt:")]
    return int(values[names.index("ListenOverflows")])


def measured(scenario, arm):
    scenario.forget()
    before = full_queues()
    values = scenario.measure(arm)
    met = full_queues() - before
    answer = {"state": MEASURED, "values": values, "overheads": scenario.overheads, "distributions": scenario.distributions,
              "without": scenario.without}
    queues = f"a server got no CPU for so long that its queue was full, {met} times: each of these connections began again a " \
             "second later"
    if disturbances := list(filter(None, [queues if met else "", scenario.failed_connections()])):
        answer["disturbed"] = "; ".join(disturbances)
    return answer


def answer(scenario, arm):
    try:
        return measured(scenario, arm)
    except Unavailable as error:
        return {"state": ABSENT, "why": str(error)}
    except Failed as error:
        return {"state": FAILED, "why": str(error), "last_lines": error.last_lines}
    except Exception as error:  # one arm's mistake must not cost the others their report
        return {"state": FAILED, "why": repr(error), "last_lines": traceback.format_exc().splitlines()[-LAST_LINES:]}


class Broken:
    """Stands for a scenario that could not be prepared."""

    def __init__(self, error):
        self.error = error

    def forget(self):
        pass

    def measure(self, arm):
        raise self.error


def prepared(name, stage):
    try:
        scenario = SCENARIOS[name](stage)
        scenario.prepare()
        return scenario
    except Exception as error:
        return Broken(error)


def read_requests(requests):
    """Passes on what is asked; at the end of it, ends the main thread wherever it is."""
    for line in sys.stdin:
        requests.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    directory, options = sys.argv[1], argparse.Namespace(**json.loads(sys.argv[2]))
    tempfile.tempdir = os.path.join(directory, "tmp")
    options.path_of_shunt = os.path.join(directory, "below") + os.pathsep + os.environ["PATH"]
    os.environ["PATH"] = os.path.join(directory, "peers") + os.pathsep + os.environ["PATH"]
    stage = Stage(directory, options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    requests = queue.Queue()
    threading.Thread(target=read_requests, args=[requests], daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what scenarios, or programs of theirs, print must not be taken for an answer
    print(json.dumps({"state": "ready", "net": stage.net}), file=answers, flush=True)
    scenario, name = None, None
    try:
        while True:
            request = requests.get()
            if request["scenario"] != name:
                stage.stop_servers()
                name = request["scenario"]
                scenario = prepared(name, stage)
            print(json.dumps(answer(scenario, request["arm"])), file=answers, flush=True)
    finally:
        stage.stop_everything()


if __name__ == "__main__":
    main()
