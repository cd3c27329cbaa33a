#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Shows each rule of rules.py something that breaks it, and something close to it that does not."""

import sys
import unittest

sys.dont_write_bytecode = True
import rules  # noqa: E402  (beside this file; no cache of it in the source tree)


def include(path, target):
    return list(rules.upward_includes([(path, f'#include "{target}"\n')]))


class RulesTest(unittest.TestCase):
    def test_an_include_that_runs_up_is_found(self):
        self.assertTrue(include("core/ring.cc", "net/lock.h"))
        self.assertTrue(include("net/lock.cc", "handlers/swap.h"))
        self.assertTrue(include("handlers/swap.cc", "tools/log.h"))
        self.assertTrue(include("tools/main.cc", "tests/support/listener.h"))
        self.assertTrue(include("core/ring.h", "bench/histogram.h"))
        self.assertTrue(include("tests/core/x_test.cc", "bench/histogram.h"))

    def test_an_include_that_runs_down_or_sideways_is_not(self):
        self.assertFalse(include("tools/main.cc", "core/fd.h"))
        self.assertFalse(include("handlers/swap.cc", "handlers/swap.h"))
        self.assertFalse(include("tests/core/x_test.cc", "tools/log.h"))
        self.assertFalse(include("core/engine.h", "absl/status/status.h"))

    def test_an_include_without_a_folder_is_found_where_the_rooted_form_exists(self):
        self.assertTrue(include("core/ring.cc", "ring.h"))

    def test_a_name_that_says_nothing_is_found(self):
        self.assertTrue(list(rules.empty_names(["core/socket_util.h"])))
        self.assertTrue(list(rules.empty_names(["tools/helpers.py"])))
        self.assertFalse(list(rules.empty_names(["core/futility.h", "net/commoner.cc"])))

    def test_a_long_file_is_found(self):
        self.assertTrue(list(rules.long_files([("a.cc", "\n" * 601)])))
        self.assertFalse(list(rules.long_files([("a.cc", "\n" * 600)])))

    def test_two_types_of_one_name_are_found(self):
        one = ("handlers/a.h", "namespace shunt {\nstruct Found {\n};\n}  // namespace shunt\n")
        for path, text in (("tools/b.h", "namespace shunt {\nclass Found final : public A {\n"),
                           ("tools/b.cc", "namespace shunt {\nnamespace {\n}  // namespace\nstruct [[nodiscard]] Found {\n")):
            self.assertTrue(list(rules.types_of_one_name([one, (path, text)])))
        for path, text in (("tools/b.cc", "namespace shunt {\nnamespace {\nstruct Found {\n"),
                           ("net/b.h", "namespace shunt::net {\nstruct Found {\n"),
                           ("tests/b.h", "namespace shunt {\nstruct Found {\n"),
                           ("tools/b.h", "namespace shunt {\nclass Found;\n  struct Found {\n")):
            self.assertFalse(list(rules.types_of_one_name([one, (path, text)])))

    def test_a_file_without_a_licence_line_is_found(self):
        self.assertTrue(list(rules.unlicensed([("a.cc", "// A.\n\n\n// SPDX-License-Identifier: Apache-2.0\n")])))
        self.assertFalse(list(rules.unlicensed([("a", "#!/bin/bash\n# SPDX-License-Identifier: Apache-2.0\n")])))

    def test_a_mark_of_unfinished_work_is_found(self):
        self.assertTrue(list(rules.marks([("a.cc", "int a;  // TODO: b\n")])))
        self.assertFalse(list(rules.marks([("a.cc", "mktemp /tmp/x.XXXXXX\n")])))

    def test_routes_are_read_from_the_list(self):
        text = "#define SHUNT_ROUTES(X)   \\\n  X(connect, Connect, kAlways) \\\n  X(bind, Bind, kAlways)\n"
        self.assertEqual(rules.routes(text), [("connect", "Connect", "kAlways"), ("bind", "Bind", "kAlways")])

    def test_a_route_that_no_test_calls_is_found(self):
        route = [("epoll_create", "EpollCreate", "kAlways")]
        only_names_it = [("tests/handlers/traps_test.cc", 'Expect("epoll_create"); epoll_create(1);')]
        calls_another = [("tests/parity/cases_epoll.cc", "epoll_create1(0)")]
        calls_it = [("tests/parity/cases_epoll.cc", "syscall(SYS_epoll_create, 1)")]
        self.assertTrue(list(rules.untested_routes(route, only_names_it + calls_another)))
        self.assertFalse(list(rules.untested_routes(route, calls_it)))

    def test_a_route_without_a_row_is_found(self):
        route = [("bind", "Bind", "kAlways")]
        self.assertTrue(list(rules.undocumented_routes(route, "| `connect` | always |")))
        self.assertFalse(list(rules.undocumented_routes(route, "| `bind` | always |")))


if __name__ == "__main__":
    unittest.main()
