#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What the metrics say of services, read by a reader that is not ours.

    service_metrics_test.py PAGE

PAGE prints the metrics of the services of service_reports.h.
"""

import os
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from scrape import samples  # noqa: E402  (found by the line above)

PAGE = ""
ODD = "a\"b\\c\n\033[2J"


class ServiceMetrics(unittest.TestCase):
    def setUp(self):
        self.read = samples(subprocess.run([PAGE], capture_output=True, text=True, check=True, timeout=60).stdout)

    def of(self, name, backend):
        return self.read["shunt_service_" + name, (("backend", f"192.168.7.{backend}:8080"), ("service", "orders"))]

    def test_each_backend_has_its_counts(self):
        self.assertEqual([self.of("picks_total", n) for n in (11, 12, 13)], [1200, 0, 0])
        self.assertEqual([self.of("connect_failures_total", n) for n in (11, 12, 13)], [7, 0, 0])
        self.assertEqual([self.of("ejections_total", n) for n in (11, 12, 13)], [2, 0, 0])

    def test_the_mean_of_connects_is_what_was_reported(self):
        self.assertEqual(self.of("connect_seconds_count", 11), 1000)
        self.assertAlmostEqual(self.of("connect_seconds_sum", 11), 0.2505)

    def test_a_backend_that_starts_slowly_is_up_and_one_that_is_down_is_not(self):
        self.assertEqual([self.of("backend_up", n) for n in (11, 12, 13)], [1, 1, 0])

    def test_limits_are_told_of_services_that_have_some(self):
        orders = (("service", "orders"),)
        for name, value in (("limit_refusals_total", 17), ("queued", 2), ("queue_seconds_sum", 0.05),
                            ("queue_seconds_count", 4)):
            self.assertEqual(self.read["shunt_service_" + name, orders], value)
        self.assertNotIn(("shunt_service_queued", (("service", ODD),)), self.read)

    def test_panic_and_age_are_of_services_and_names_come_through(self):
        self.assertEqual(self.read["shunt_service_panic", (("service", "orders"),)], 0)
        self.assertEqual(self.read["shunt_service_panic", (("service", ODD),)], 1)
        self.assertEqual(self.read["shunt_service_source_age_seconds", (("service", ODD),)], 312.5)
        self.assertNotIn(("shunt_service_source_age_seconds", (("service", "orders"),)), self.read)


if __name__ == "__main__":
    PAGE = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
