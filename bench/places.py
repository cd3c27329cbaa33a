# SPDX-License-Identifier: Apache-2.0
"""Where the programs are that the harness is made of, in a build and installed; and how its command lines look."""

import argparse
import os
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
SCRIPTS = {"run", "show", "stage", "arena", "container"}


class Missing(Exception):
    """Something that has to be there is not; says what, and the remedy."""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Options as the other subcommands of shunt show them: "-h,--help"."""

    def _format_action_invocation(self, action):
        if not action.option_strings:
            return super()._format_action_invocation(action)
        value = "" if action.nargs == 0 else " " + self._format_args(action, action.metavar or action.dest.upper())
        return ",".join(action.option_strings) + value


class Parser(argparse.ArgumentParser):
    """Examples first in the help, and errors of one line."""

    def __init__(self, prog, description, examples, **more):
        width = max(len(words) for words, _ in examples)
        shown = "\n".join(f"  {prog} {words:{width}}  # {about}" for words, about in examples)
        super().__init__(prog=prog, usage=argparse.SUPPRESS, description=f"examples:\n{shown}\n\n{description}",
                         formatter_class=Formatter, allow_abbrev=False, **more)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help shows what is right)\n")

    def answer(self, text):
        """Prints it. That nobody reads on (a closed pipe) is no error; that it cannot be written ends with exit status 2."""
        try:
            sys.stdout.reconfigure(errors="backslashreplace")  # whatever the locale
            print(text, flush=True)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor does the end of the interpreter try again
            if not isinstance(error, BrokenPipeError):
                self.exit(2, f"{self.prog}: standard output: {error.strerror}\n")


def why_not_executable(path):
    """None: it is a program that can be executed."""
    return None if os.path.isfile(path) and os.access(path, os.X_OK) else f"{path} is not a program that can be executed"


def are_same(path, other):
    """Whether both are one file."""
    try:
        return path == other or os.path.samefile(path, other)
    except OSError:  # one is not there
        return False


def programs_of(build):
    """(directory of the measuring programs, shunt): of a build directory if one is given; else those beside the script that
    was called (a build has a link to it, an installation has both in one place); else those of the build of this source."""
    beside = os.path.dirname(os.path.abspath(sys.argv[0]))
    root = os.path.dirname(HERE)
    if build:
        tried = [(os.path.join(build, "bench"), os.path.join(build, "shunt"))]
    else:
        tried = [(beside, os.path.join(os.path.dirname(beside), "shunt"))]
        tried += [(os.path.join(root, "build", name, "bench"), os.path.join(root, "build", name, "shunt"))
                  for name in ("release", "quickstart", "dev", ".")]
    for programs, shunt in tried:
        if os.path.exists(os.path.join(programs, "echo_server")):
            return programs, shunt
    raise Missing(f"the measuring programs are not in {tried[-1 if build else 1][0]}: build them (cmake --preset release && "
                  "cmake --build --preset release), or name the build directory by --build")


def program(programs, name):
    path = os.path.join(programs, name)
    if not os.path.exists(path):
        raise Missing(f"{path} is not there: build it (cmake --build BUILD --target {name}), or install again")
    return path


def measuring_programs(programs):
    """The paths of all programs in that directory, and of libraries that these load."""
    names = [name for name in sorted(os.listdir(programs))
             if name not in SCRIPTS and not name.startswith("test_") and "." not in name.removesuffix(".so")]
    paths = [os.path.join(programs, name) for name in names]
    return [path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)]
