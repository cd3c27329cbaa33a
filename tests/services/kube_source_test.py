#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Services whose backends are those of a Service of Kubernetes, from a server that answers as the real one does.

    kube_source_test.py --agent PROGRAM --runtime runc|crun --as root|user [TEST]
"""

import json
import os
import signal
import sys
import threading
import time

sys.dont_write_bytecode = True
from kube_case import KubeCase, run  # noqa: E402  (it leads to those below)
from kube_objects import LABEL, endpoint, slice_of  # noqa: E402
from service_case import SERVICE, with_network  # noqa: E402
from stage import HOST  # noqa: E402

ANSWER_WITHIN = 10  # seconds: WatchThread::kAnswerWithin
ENDING = {"ready": False, "serving": True, "terminating": True}


class KubeSource(KubeCase):
    def serve(self, port="http", kubeconfig=True):
        spec = {"service": "default/orders", "port": port}
        if kubeconfig:
            spec["kubeconfig"] = self.kubeconfig
        self.write(f"services:\n- name: web\n  address: {SERVICE}\n  policy: round-robin\n"
                   f"  discover: {{kubernetes: {json.dumps(spec)}}}\n")
        return self.start_agent("--config", self.config)

    def wait_for_watch(self, count):
        self.assertTrue(self.server.wait_for_watch(count), f"there is no watch number {count}")

    def warnings(self, agent):
        return [line for line in agent.lines if "service web:" in line]

    def wait_for_ports(self, agent, ports):
        """A report may be ahead of the table by a tenth of a second."""
        self.wait_until(lambda: self.ports(agent) == ports, f"containers do not reach {ports}")

    def test_containers_connect_to_what_slices_say(self):
        self.start_servers(18381, 18382, 18383)
        self.server.page = 1
        self.server.put(slice_of("orders-1", endpoint(HOST), port=18381))
        self.server.put(slice_of("orders-2", endpoint(HOST), port=18382))
        self.server.put(slice_of("other-1", endpoint(HOST), port=18383, service="other"))
        agent = self.serve()
        self.wait_for_ports(agent, {"18381", "18382"})
        self.wait_for_watch(1)
        self.assertEqual([token for _, _, token in self.server.requests], ["Bearer first"] * 3)
        self.assertEqual([query.get("continue", "") != "" for query in self.server.lists()], [False, True])
        self.server.put(slice_of("orders-1", endpoint(HOST), port=18383))
        self.server.remove("orders-2")
        self.wait_for_backends(agent, f"{HOST}:18383")
        self.wait_for_ports(agent, {"18383"})
        # Nothing is ready: who is about to end has to do.
        self.server.put(slice_of("orders-1", endpoint(HOST, conditions=ENDING), port=18382))
        self.wait_for_backends(agent, f"{HOST}:18382")
        self.wait_for_ports(agent, {"18382"})
        self.assertTrue(self.report(agent)["backends"][0]["backup"])
        # Another Service's from now on.
        self.server.put(slice_of("orders-1", endpoint(HOST), port=18382, service="other"))
        self.wait_for_backends(agent)
        self.assertEqual(self.warnings(agent), [])

    def test_no_backends_are_an_answer(self):
        self.server.put(slice_of("orders-1", ports=None))
        agent = self.serve()
        self.wait_for_watch(1)
        self.wait_for_health(agent)
        folder = self.bundle("refused", agent.socket, "nc 10.96.0.10 80", traps=("connect",), change=with_network)
        self.assertIn("Connection refused", self.runtime("run", "refused", cwd=folder).stderr)
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        self.wait_for_backends(agent, "192.0.2.1:80")
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1", conditions={"ready": False})))
        self.wait_for_backends(agent)
        self.assertEqual(self.warnings(agent), [])

    def test_a_watch_goes_on_where_the_last_one_has_ended(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        agent = self.serve()
        self.wait_for_watch(1)
        self.server.put(slice_of("orders-1", endpoint("192.0.2.2")))
        self.wait_for_backends(agent, "192.0.2.2:80")
        self.server.end_watches()
        self.wait_for_watch(2)
        self.server.put(slice_of("orders-1", endpoint("192.0.2.3")))
        self.wait_for_backends(agent, "192.0.2.3:80")
        self.server.bookmark()
        self.server.put(slice_of("orders-1", endpoint("192.0.2.4")))
        self.wait_for_backends(agent, "192.0.2.4:80")
        self.server.end_watches(broken=True)
        self.wait_for_watch(3)
        self.assertEqual(self.server.versions_watched(), [101, 102, 105])
        self.assertEqual(len(self.server.lists()), 1)
        self.server.put(slice_of("orders-1", endpoint("192.0.2.5")))
        self.wait_for_backends(agent, "192.0.2.5:80")
        self.assertEqual(self.warnings(agent), [])

    def test_a_watch_that_has_nothing_to_say_stays(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        agent = self.serve()
        self.wait_for_watch(1)
        # Until well after it would have been given up if it had not been answered.
        over = threading.Event()
        self.assertFalse(over.wait(ANSWER_WITHIN + 2))
        self.assertEqual(len(self.server.requests), 2)
        self.assertEqual(self.warnings(agent), [])

    def test_what_the_server_has_forgotten_is_listed_anew(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        agent = self.serve()
        self.wait_for_watch(1)
        self.server.bookmark()
        self.server.put(slice_of("orders-1", endpoint("192.0.2.2")))
        self.wait_for_backends(agent, "192.0.2.2:80")
        self.server.put(slice_of("other-1", service="other"))
        self.server.forget()
        self.server.end_watches()
        self.wait_for_watch(3)
        self.assertEqual(len(self.server.lists()), 2)
        self.server.put(slice_of("orders-1", endpoint("192.0.2.3")))
        self.wait_for_backends(agent, "192.0.2.3:80")
        self.assertEqual(self.warnings(agent), [])

    def test_a_token_that_has_been_exchanged_is_read_anew(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        agent = self.serve()
        self.wait_for_watch(1)
        self.server.token = "second"
        self.server.end_watches()
        self.wait_for_error(agent, "it answers 401: Unauthorized; give the agent a token")
        self.wait_for_backends(agent, "192.0.2.1:80")
        self.write_token("second")
        self.wait_for_health(agent)
        self.assertEqual(self.server.requests[-1][2], "Bearer second")
        self.assertEqual(len(self.server.lists()), 1)

    def test_a_server_that_is_away_changes_nothing(self):
        self.start_servers(18381)
        self.server.put(slice_of("orders-1", endpoint(HOST), port=18381))
        agent = self.serve()
        self.wait_for_watch(1)
        self.wait_for_ports(agent, {"18381"})
        self.server.kill()
        self.wait_for_error(agent, f"kubernetes default/orders: https://127.0.0.1:{self.server.port}: ")
        agent.wait_for(r"warning: service web: kubernetes default/orders: .*127\.0\.0\.1")
        before = self.report(agent)["source_age_s"]
        self.assertEqual(self.ports(agent), {"18381"})
        self.wait_until(lambda: self.report(agent)["source_age_s"] > before, "the list does not grow old")
        self.server.put(slice_of("orders-2", endpoint("192.0.2.2")))  # while nobody hears it
        self.server.start()
        self.wait_for_backends(agent, f"{HOST}:18381", "192.0.2.2:80")
        self.wait_for_health(agent)
        agent.wait_for("service web: its source is right again: ")
        self.assertEqual(len(self.server.lists()), 1)

    def test_a_server_that_is_away_at_first(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        self.server.kill()
        agent = self.serve()
        self.wait_for_error(agent, "127.0.0.1")
        self.server.start()
        self.wait_for_backends(agent, "192.0.2.1:80")
        self.wait_for_health(agent)

    def test_an_engine_that_is_killed_leaves_the_service_as_it_is(self):
        self.start_servers(18381)
        self.server.put(slice_of("orders-1", endpoint(HOST), port=18381))
        agent = self.serve()
        self.wait_for_watch(1)
        os.kill(self.engine_of(agent), signal.SIGKILL)
        self.assertEqual(self.ports(agent), {"18381"})
        self.wait_for_watch(2)
        self.server.put(slice_of("orders-1", endpoint("192.0.2.2")))
        self.wait_for_backends(agent, "192.0.2.2:80")

    def test_garbage(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        agent = self.serve()
        for number, line in enumerate(("<html>\x1b[31mhello</html>", "[" * 100_000, "", '{"type":"ADDED","object":7}',
                                       '{"type":"MODIFIED","object":{"kind":"EndpointSlice","metadata":{}}}')):
            self.wait_for_watch(number + 1)
            self.server.bookmark()  # one after the other, without anything right in between, would be asked for less often
            self.server.say(line)
            agent.wait_for("warning: service web: .* a line of the watch is not what the API server says")
            agent.wait_for("service web: its source is right again: 1 backends")
        objects = self.server.objects
        slices, objects["endpointslices"] = objects["endpointslices"], {"x": {"metadata": {"labels": {LABEL: "orders"}}}}
        self.wait_for_watch(6)
        self.server.forget()
        self.server.end_watches()
        self.wait_for_error(agent, "the list is not what the API server says of EndpointSlices: name is missing")
        self.wait_for_backends(agent, "192.0.2.1:80")
        objects["endpointslices"] = slices
        self.wait_for_health(agent)

    def test_refusals_say_what_would_help_and_are_waited_out(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1")))
        self.server.refusals += [(403, 'endpointslices is forbidden: User "x" cannot list', {}),
                                 (404, "the server could not find the requested resource", {}),
                                 (429, "too many", {"Retry-After": "2"})]
        agent = self.serve()
        agent.wait_for("warning: .* 403: endpointslices is forbidden.*the right to list and watch endpointslices")
        agent.wait_for("warning: .* 404: .*Kubernetes 1.21")
        agent.wait_for("warning: .* 429: too many")
        began = time.monotonic()
        agent.wait_for("service web: its source is right again: 1 backends")
        self.assertGreater(time.monotonic() - began, 1.5)

    def test_a_port_that_is_not_there(self):
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1"), port=8080))
        agent = self.serve(port="grpc")
        self.wait_for_error(agent, "no TCP or UDP port grpc; there are: http (8080/TCP)")
        self.server.put(slice_of("orders-1", endpoint("192.0.2.1"), ports=[{"name": "grpc", "port": 9090}]))
        self.wait_for_backends(agent, "192.0.2.1:9090")
        self.wait_for_health(agent)

    def test_without_a_server_it_is_told_how_to_name_one(self):
        agent = self.serve(kubeconfig=False)
        self.wait_for_error(agent, "give kubeconfig: FILE")


if __name__ == "__main__":
    run()
