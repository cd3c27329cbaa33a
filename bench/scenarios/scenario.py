# SPDX-License-Identifier: Apache-2.0
"""What every scenario is. A new one is a class in a file of its own, and a line in __init__.py."""


class Scenario:
    title = ""
    arms = ["native", "shunt", "slirp4netns", "pasta"]
    metrics = {}  # name -> (unit, better)
    as_root = False  # inside the stage

    def __init__(self, stage):
        self.stage = stage
        self.tiny = stage.arguments.tiny
        self.seconds = stage.arguments.seconds

    def base(self, arm):
        return None if arm == "native" else "native"

    def prepare(self):
        pass

    def measure(self, arm):
        raise NotImplementedError
