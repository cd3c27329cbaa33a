# SPDX-License-Identifier: Apache-2.0
"""Reads a results.json that somebody has given (docs/bench-results.md), and refuses what is none, or of another form."""

import json
import os
import re

import course

SCHEMA = "shunt-bench-1"
ANEW = "measure anew, or take another result"
LEAST, MOST = 1e-30, 1e30  # nothing that was measured is beyond, and ratios of ratios stay numbers


class Unusable(Exception):
    """A file that is no result; says which, why, and the remedy."""


def kind(about, holds):
    """A check of a value, as those below: holds(value), or Unusable with the value's place."""
    def check(value, place):
        if not holds(value):
            raise Unusable(f"{place} is {value!r:.40}, which is no {about}; {ANEW}")
    return check


def or_null(check):
    return lambda value, place: None if value is None else check(value, place)


def list_of(check):
    def of(value, place):
        LIST(value, place)
        for i, inner in enumerate(value):
            check(inner, f"{place}[{i}]")
    return of


def table_of(check):
    """Of names that the file is free to choose."""
    def of(value, place):
        TABLE(value, place)
        for name, inner in value.items():
            NAME(name, f"a name in {place}")
            check(inner, f"{place}.{name}")
    return of


def form(optional=(), **checks):
    """An object with these members, those in `optional` may be missing; what else it has is nobody's matter."""
    def of(value, place):
        TABLE(value, place)
        for name, check in checks.items():
            if name in value:
                check(value[name], f"{place}.{name}" if place else name)
            elif name not in optional:
                raise Unusable(f"{place or 'it'} has no \"{name}\"; {ANEW}")
    return of


def no_two_of_one_name(value, place):
    """The second of two would hide the first."""
    known = set()
    for name in (one["name"] for one in value):
        if name in known:
            raise Unusable(f"{place} has {name!r:.40} twice; keep one of them")
        known.add(name)


def both(*checks):
    def of(value, place):
        for check in checks:
            check(value, place)
    return of


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and (value == 0 or LEAST < abs(value) < MOST)


def is_of_64_bits(histogram):
    """What its indexes stand for; a larger one would be a number that fills the memory."""
    return all(index < 64 << histogram["sub_bits"] for index, _ in histogram["counts"])


TABLE = kind("object", lambda value: isinstance(value, dict))
LIST = kind("list", lambda value: isinstance(value, list))
TEXT = kind("text", lambda value: isinstance(value, str) and not re.search("[\ud800-\udfff]", value))  # UTF-8 has no such
NAME = kind("name", lambda value: isinstance(value, str) and value.isprintable())
# A scenario's is part of files' names.
SIMPLE_NAME = kind("simple name", lambda value: isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value))
FLAG = kind("true or false", lambda value: isinstance(value, bool))
NUMBER = kind("measured number", is_number)
COUNT = kind("count", lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63)
BETTER = kind("lower or higher", lambda value: value in ("lower", "higher"))
STATE = kind("state", lambda value: value in course.NOTED)
PAIR = both(list_of(COUNT), kind("pair", lambda value: len(value) == 2))

ARM = form(base=or_null(NAME), floor=or_null(NAME), overhead=or_null(NUMBER), values=list_of(or_null(NUMBER)))
METRIC = form(name=NAME, unit=NAME, better=BETTER, arms=table_of(ARM), without=or_null(TEXT), optional=("without",))
BITS = kind("number of bits", lambda value: isinstance(value, int) and 1 <= value <= 20)
HISTOGRAM = both(form(sub_bits=BITS, counts=list_of(PAIR)), kind("histogram", is_of_64_bits))
SCENARIO = form(name=SIMPLE_NAME, title=NAME, runs=COUNT,
                precision=or_null(form(asked=NUMBER, reached=or_null(NUMBER), metric=NAME)),
                metrics=both(list_of(METRIC), no_two_of_one_name),
                distributions=table_of(table_of(HISTOGRAM)),
                notes=table_of(form(state=STATE, why=TEXT, last_lines=list_of(TEXT))))
RESULT = form(complete=FLAG, stopped_by=or_null(TEXT), command=TEXT, started=TEXT, seconds=NUMBER,
              environment=table_of(TEXT), harness=form(timestamp_ns=NUMBER, empty_sample_ns=NUMBER), probe=TABLE,
              warnings=list_of(TEXT), scenarios=both(list_of(SCENARIO), no_two_of_one_name),
              optional=("command", "started", "seconds", "harness", "probe", "warnings"))


def check(result):
    TABLE(result, "it")
    schema = result.get("schema")
    if schema != SCHEMA:
        raise Unusable(f"its form is {schema!r:.40} and not {SCHEMA!r}; use the shunt bench that has measured it, or measure anew")
    RESULT(result, "")


def read(path, use):
    """The result in that file, or in the results.json of that directory. `use(result)` is called: what that cannot take is no
    result, either."""
    path = os.path.join(path, "results.json") if os.path.isdir(path) else path
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
        check(result)
        use(result)
        return result
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}; name a results.json of shunt bench, or its directory") from None
    except Unusable as error:
        raise Unusable(f"{path} cannot be used: {error}") from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise Unusable(f"{path} is damaged, or no results.json of shunt bench: {why:.200}; {ANEW}") from None
