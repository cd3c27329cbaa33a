#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Every Service of a cluster of Kubernetes, at its cluster IPs.

    kube_cluster_test.py --agent PROGRAM --runtime runc|crun --as root|user [TEST]
"""

import json
import os
import signal
import socket
import sys
import threading

sys.dont_write_bytecode = True
from kube_case import KubeCase, run  # noqa: E402  (it leads to those below)
from kube_objects import KINDS, endpoint, service_of, slice_of  # noqa: E402
from stage import HOST  # noqa: E402

WATCHED = tuple(KINDS)
FIRST, SECOND, THIRD = 18381, 18382, 18383
LOCAL = {"internalTrafficPolicy": "Local"}
ENDING = {"ready": False, "serving": True, "terminating": True}


def ports_of(*ports):
    """Of a slice: (name, number), or (name, number, protocol)."""
    return [{"name": port[0], "port": port[1], "protocol": (*port, "TCP")[2]} for port in ports]


class KubeCluster(KubeCase):
    def serve(self, services="all", more="", environment=None, **keys):
        entry = {"name": "cluster", "policy": "round-robin",
                 "discover": {"kubernetes": {"services": services, "kubeconfig": self.kubeconfig}}, **keys}
        self.write(f"services:\n- {json.dumps(entry)}\n{more}")
        return self.start_agent("--config", self.config, environment=environment)

    def started(self, **keys):
        agent = self.serve(**keys)
        self.assertTrue(self.server.wait_for_watch(1, WATCHED), "nothing is watched")
        return agent

    def test_whoever_connects_first_finds_services(self):
        self.server.put(service_of("web", ["10.96.0.10"], ("http", 80)))
        self.server.put(slice_of("web-1", endpoint(HOST), port=FIRST, service="web"))
        # Both lists are asked for before one is answered.
        self.server.lists_answered.clear()
        answering = threading.Thread(target=lambda: self.server.wait_for(lambda: len(self.server.requests) == 2)
                                     and self.server.lists_answered.set())
        answering.start()
        self.addCleanup(answering.join)
        agent = self.serve()
        self.assertEqual(self.found(agent), {"default/web:http": [f"{HOST}:{FIRST}"]})

    def test_a_server_that_is_silent_keeps_no_agent_from_starting(self):
        self.server.lists_answered.clear()
        self.addCleanup(self.server.lists_answered.set)
        agent = self.serve()
        self.assertEqual(self.found(agent), {})
        self.assertEqual(self.report(agent, "cluster")["source_error"], "")

    def found(self, agent):
        """{name: its backends' addresses}, of what was found."""
        return {service["name"]: [one["address"] for one in service["backends"]]
                for service in json.loads(self.ctl(agent, "services", "--json"))["services"] if service["source"] == "cluster"}

    def wait_for_found(self, agent, expected):
        self.wait_until(lambda: self.found(agent) == expected, f"{expected} is not what is found")

    def answers(self, agent, host, port, count=8, patience=10):
        """What a new container hears there: the ports of servers, or what connecting fails with.

        An address that is no service's is one of the host's network, where nobody answers: that takes `patience` seconds.
        """
        one = rf"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w {patience} {host} {port} 2>&1 | tail -n 1"
        return {line.split(": ")[-1] for line in
                self.in_container(agent, f"for i in $(seq {count}); do {one}; done").splitlines()}

    def wait_for_answers(self, agent, host, port, expected):
        """A report may be ahead of the table by a tenth of a second."""
        self.wait_until(lambda: self.answers(agent, host, port, patience=1) == expected, f"{host}:{port} does not lead to {expected}")

    def said(self, agent):
        return [line for line in agent.lines if "warning:" in line and "service cluster" in line]

    def put_web(self, *ports, **spec):
        """The Service prod/web at 10.96.1.1, with a slice for each of `ports`, which are those of servers."""
        self.server.put(service_of("web", ["10.96.1.1"], ("http", 80), space="prod", **spec))
        for port in ports:
            self.server.put(slice_of(f"web-{port}", endpoint(HOST), port=port, service="web", space="prod"))

    def test_containers_reach_every_port_of_every_service(self):
        self.start_servers(FIRST, SECOND, THIRD)
        self.server.page = 1
        self.server.put(service_of("web", ["10.96.1.1", "fd00:96::1"], ("http", 80), ("admin", 8080), space="prod"))
        self.server.put(slice_of("web-a", endpoint(HOST), service="web", space="prod",
                                 ports=ports_of(("http", FIRST), ("admin", THIRD))))
        self.server.put(slice_of("web-b", endpoint(HOST), service="web", space="prod", ports=ports_of(("http", SECOND))))
        self.server.put(slice_of("web-c", endpoint("2001:db8::1"), service="web", space="prod", addressType="IPv6",
                                 ports=ports_of(("http", 80))))
        self.server.put(service_of("plain", ["10.96.1.2"], ("", 80)))
        self.server.put(slice_of("plain-a", endpoint(HOST), service="plain", ports=ports_of(("", SECOND))))
        self.server.put(service_of("nobody", ["10.96.1.3"], ("http", 80)))
        self.server.put(service_of("headless", [], ("http", 80)))
        self.server.put(service_of("proxied", ["10.96.1.4"], ("http", 80),
                                   labels={"service.kubernetes.io/service-proxy-name": "other"}))
        self.server.put(service_of("name", [], type="ExternalName", externalName="example.com"))
        agent = self.started()
        self.wait_for_found(agent, {"default/nobody:http": [], "default/plain": [f"{HOST}:{SECOND}"],
                                    "prod/web:admin": [f"{HOST}:{THIRD}"],
                                    "prod/web:http": [f"{HOST}:{FIRST}", f"{HOST}:{SECOND}", "[2001:db8::1]:80"]})
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST), str(SECOND)})
        self.assertEqual(self.answers(agent, "10.96.1.1", 8080), {str(THIRD)})
        self.assertEqual(self.answers(agent, "10.96.1.2", 80), {str(SECOND)})
        self.assertEqual(self.answers(agent, "10.96.1.3", 80), {"Connection refused"})
        self.assertEqual(self.report(agent, "prod/web:http")["addresses"], ["10.96.1.1:80/tcp", "[fd00:96::1]:80/tcp"])
        self.assertEqual(self.said(agent), [])
        # Two lists in pages and two watches, whatever the number of Services.
        self.assertEqual({query["resource"] for watch, query, _ in self.server.requests if watch}, set(WATCHED))
        self.assertEqual(len(self.server.requests), 5 + 4 + 2)

    def test_services_of_udp(self):
        """A program that has connected its socket reaches a backend on the container's ordinary path; here there is none."""
        self.server.put(service_of("dns", ["10.96.0.10"], ("dns", 53, "UDP"), ("dns-tcp", 53), ("other", 9, "SCTP")))
        self.server.put(service_of("other", ["10.96.0.11"], ("other", 9, "SCTP")))
        self.server.put(slice_of("dns-a", endpoint(HOST), service="dns",
                                 ports=ports_of(("dns", 53, "UDP"), ("dns-tcp", 5353), ("other", 9, "SCTP"))))
        agent = self.started(policy="least-connections", health={"interval": "1s"})
        self.wait_for_found(agent, {"default/dns:dns": [f"{HOST}:53"], "default/dns:dns-tcp": [f"{HOST}:5353"]})
        self.assertEqual(self.report(agent, "default/dns:dns")["addresses"], ["10.96.0.10:53/udp"])
        agent.wait_for("warning: service cluster: Service default/.*: SCTP is not balanced")
        self.assertEqual(len(self.said(agent)), 1)

    def test_what_changes_is_followed(self):
        self.start_servers(FIRST, SECOND)
        self.put_web(FIRST)
        agent = self.started()
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST)})
        self.put_web(SECOND)
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST), str(SECOND)})
        self.server.remove(f"prod/web-{FIRST}")
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(SECOND)})
        self.server.put(service_of("web", ["10.96.1.7"], ("http", 8080), space="prod"))
        self.wait_for_answers(agent, "10.96.1.7", 8080, {str(SECOND)})
        self.assertNotEqual(self.answers(agent, "10.96.1.1", 80, count=1, patience=1), {str(SECOND)})
        self.server.put(slice_of(f"web-{SECOND}", endpoint(HOST, conditions=ENDING), port=SECOND, service="web", space="prod"))
        self.wait_until(lambda: [one["backup"] for one in self.report(agent, "prod/web:http")["backends"]] == [True],
                        "who is about to end is no backup")
        self.server.put(slice_of(f"web-{SECOND}", port=SECOND, service="web", space="prod"))
        self.wait_for_answers(agent, "10.96.1.7", 8080, {"Connection refused"})
        self.server.remove("prod/web", "services")
        self.wait_for_found(agent, {})
        self.assertEqual(self.said(agent), [])

    def test_commands_go_by_the_names_that_are_shown(self):
        self.start_servers(FIRST, SECOND)
        self.put_web(FIRST, SECOND)
        agent = self.started(**{"getpeername": "service"})
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST), str(SECOND)})
        self.ctl(agent, "drain", "prod/web:http", f"{HOST}:{FIRST}")
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(SECOND)})
        self.kill_engine(agent)
        self.assertEqual(self.answers(agent, "10.96.1.1", 80), {str(SECOND)})
        self.assertIn("no service \"prod/web\"", self.ctl(agent, "enable", "prod/web", f"{HOST}:{FIRST}", status=1))
        self.ctl(agent, "enable", "prod/web:http", f"{HOST}:{FIRST}")
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST), str(SECOND)})

    def test_one_namespace(self):
        self.put_web(FIRST)
        self.server.put(service_of("web", ["10.96.1.2"], ("http", 80)))
        agent = self.started(services="prod")
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:{FIRST}"]})

    def test_sessions_of_a_client_stay_together(self):
        self.start_servers(FIRST, SECOND, THIRD)
        self.put_web(FIRST, SECOND, THIRD, sessionAffinity="ClientIP",
                     sessionAffinityConfig={"clientIP": {"timeoutSeconds": 600}})
        agent = self.started()
        self.wait_until(lambda: self.found(agent), "nothing is found")
        self.assertEqual(self.report(agent, "prod/web:http")["affinity"], "container")
        everybody = {str(FIRST), str(SECOND), str(THIRD)}
        self.wait_until(lambda: self.answers(agent, "10.96.1.1", 80, count=1, patience=1) <= everybody, "it is not in force")
        heard = self.answers(agent, "10.96.1.1", 80, count=12)
        self.assertTrue(len(heard) == 1 and heard <= everybody, heard)
        self.put_web(sessionAffinity="None")
        self.wait_for_answers(agent, "10.96.1.1", 80, everybody)

    def test_endpoints_of_the_own_node(self):
        self.start_servers(FIRST, SECOND)
        self.put_web(**LOCAL)
        for port, node in ((FIRST, "node-1"), (SECOND, "node-2")):
            self.server.put(slice_of(f"web-{port}", endpoint(HOST, nodeName=node), port=port, service="web", space="prod"))
        agent = self.started(more="node-name: node-2\n", environment={"NODE_NAME": "node-1"})
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(SECOND)})
        self.server.remove(f"prod/web-{SECOND}")
        self.wait_for_answers(agent, "10.96.1.1", 80, {"Connection refused"})
        self.put_web()
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST)})
        self.assertEqual(self.said(agent), [])

    def test_the_node_is_known_by_its_environment_or_not_at_all(self):
        self.put_web(**LOCAL)
        self.server.put(slice_of("web-1", endpoint(HOST, nodeName="node-1"), endpoint("192.0.2.1", nodeName="node-2"),
                                 port=80, service="web", space="prod"))
        agent = self.started(environment={"NODE_NAME": "node-1"})
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:80"]})
        agent.stop()
        agent = self.serve(environment={"NODE_NAME": ""})
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:80", "192.0.2.1:80"]})
        agent.wait_for("warning: service cluster: Service prod/web wants endpoints of its own node .*node-name: NAME")
        self.assertEqual(len(self.said(agent)), 1)

    def test_a_service_that_is_configured_keeps_its_address(self):
        self.start_servers(FIRST, SECOND)
        self.put_web(FIRST)
        agent = self.started(more=f"- {{name: own, address: '10.96.1.1:80', backends: ['{HOST}:{SECOND}']}}\n")
        agent.wait_for("what was found for prod/web:http at 10.96.1.1:80 is left out: a service that is configured")
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(SECOND)})
        self.write(json.dumps({"services": [{"name": "cluster", "policy": "round-robin", "discover": {
            "kubernetes": {"services": "all", "kubeconfig": self.kubeconfig}}}]}))
        self.ctl(agent, "reload")
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST)})

    def test_what_the_server_has_forgotten_is_listed_anew(self):
        self.put_web(FIRST)
        self.server.put(service_of("old", ["10.96.1.2"], ("http", 80)))
        agent = self.started()
        self.wait_for_found(agent, {"default/old:http": [], "prod/web:http": [f"{HOST}:{FIRST}"]})
        for resource in WATCHED:
            self.server.bookmark(resource)
        # While nobody hears it.
        self.server.kill()
        self.server.remove("default/old", "services")
        self.put_web(SECOND)
        self.server.remove(f"prod/web-{FIRST}")
        self.server.forget()
        self.server.start()
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:{SECOND}"]})
        self.assertEqual([len(self.server.lists(resource)) for resource in WATCHED], [2, 2])

    def test_a_server_that_is_away_changes_nothing(self):
        self.start_servers(FIRST)
        self.put_web(FIRST)
        agent = self.started()
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST)})
        self.server.kill()
        self.wait_until(lambda: "127.0.0.1" in self.report(agent, "cluster")["source_error"], "nobody says that it is away")
        agent.wait_for("warning: service cluster: kubernetes (Services|EndpointSlices): .*127\\.0\\.0\\.1")
        self.assertEqual(self.answers(agent, "10.96.1.1", 80), {str(FIRST)})
        # Nor does an engine that finds it away.
        self.kill_engine(agent)
        self.assertEqual(self.answers(agent, "10.96.1.1", 80), {str(FIRST)})
        self.server.put(service_of("new", ["10.96.1.2"], ("http", 80)))
        self.server.start()
        self.wait_for_found(agent, {"default/new:http": [], "prod/web:http": [f"{HOST}:{FIRST}"]})
        self.wait_until(lambda: self.report(agent, "cluster")["source_error"] == "", "the source stays broken")
        agent.wait_for("service cluster: its source is right again")

    def test_an_engine_that_is_killed_leaves_what_was_found(self):
        self.start_servers(FIRST)
        self.put_web(FIRST)
        agent = self.started()
        self.wait_for_answers(agent, "10.96.1.1", 80, {str(FIRST)})
        # The next one hears nothing: what it knows it has from the one before.
        self.server.refusals += [(503, "not now", {"Retry-After": "60"})] * 1000
        os.kill(self.engine_of(agent), signal.SIGKILL)
        self.assertEqual(self.answers(agent, "10.96.1.1", 80), {str(FIRST)})
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:{FIRST}"]})

    def test_one_stream_that_is_refused_is_told_while_the_other_goes_on(self):
        self.put_web(FIRST)
        agent = self.started()
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:{FIRST}"]})
        self.server.token = "second"
        self.server.end_watches()
        agent.wait_for("warning: service cluster: .*it answers 401: Unauthorized; give the agent a token")
        self.write_token("second")
        self.wait_until(lambda: self.report(agent, "cluster")["source_error"] == "", "the source stays broken")
        self.put_web(SECOND)
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:{FIRST}", f"{HOST}:{SECOND}"]})

    def test_rights_that_are_missing_are_named(self):
        self.server.refusals += [(403, "is forbidden", {})] * 2
        agent = self.serve()
        for right in ("right to list and watch services", "right to list and watch endpointslices"):
            # In one line or in two, as the answers come.
            self.wait_until(lambda: any(right in line for line in agent.lines), f"nobody names the {right!r}")
        self.wait_until(lambda: self.report(agent, "cluster")["source_error"] == "", "the source stays broken")

    def test_an_object_with_a_mistake_stops_no_other(self):
        self.put_web(FIRST)
        agent = self.started()
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:{FIRST}"]})
        self.server.put(slice_of(f"web-{FIRST}", endpoint("192.0.2.9"), port=70000, service="web", space="prod"))
        broken = service_of("web", ["10.96.1.1"], ("http", 99999), space="prod")
        self.server.put(broken)
        self.server.put(service_of("never", ["10.96.1.9"], ("http", 0)))
        for told in (f"service cluster: EndpointSlice web-{FIRST}: there is no port 70000; it counts as it was",
                     "service cluster: Service prod/web: there is no port 99999",
                     "service cluster: Service default/never: there is no port 0"):
            self.wait_until(lambda: any(told in line for line in self.said(agent)), f"nobody says {told!r}")
        self.server.put(service_of("good", ["10.96.1.5"], ("http", 80)))
        self.server.put(slice_of("good-1", endpoint("192.0.2.1"), service="good"))
        self.wait_for_found(agent, {"default/good:http": ["192.0.2.1:80"], "prod/web:http": [f"{HOST}:{FIRST}"]})
        self.assertIn("there is no port", self.report(agent, "prod/web:http")["source_error"])
        self.assertEqual(self.report(agent, "default/good:http")["source_error"], "")
        self.assertEqual(self.report(agent, "cluster")["source_error"], "")
        # Said again, it is not told again; mended, it counts.
        self.server.put(broken)
        self.put_web(FIRST)
        self.wait_until(lambda: self.report(agent, "prod/web:http")["source_error"] == "", "it stays broken")
        self.assertEqual(len(self.said(agent)), 3)

    def test_garbage_of_the_server_changes_nothing(self):
        self.put_web(FIRST)
        agent = self.started()
        self.wait_for_found(agent, {"prod/web:http": [f"{HOST}:{FIRST}"]})
        for count, resource in enumerate(WATCHED):
            self.server.say('{"type":"ADDED","object":7}', resource)
            agent.wait_for("warning: service cluster: .* a line of the watch is not what the API server says of "
                           + KINDS[resource][0])
            self.wait_until(lambda: self.report(agent, "cluster")["source_error"] == "", "the source stays broken")
            self.assertEqual(len(self.server.lists(resource)), 2, count)
        self.assertEqual(self.found(agent), {"prod/web:http": [f"{HOST}:{FIRST}"]})

    def test_endpoints_lead_nowhere_that_the_server_of_a_cluster_would_not_let_them(self):
        """Whoever may write EndpointSlices of a namespace is not let to the host's own loopback, nor into a circle."""
        secret = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(secret.close)
        secret.setblocking(False)
        port = secret.getsockname()[1]
        self.put_web()
        self.server.put(slice_of("web-1", *(endpoint(ip) for ip in ("127.0.0.1", "169.254.169.254", "10.96.1.1", "0.0.0.0")),
                                 port=port, service="web", space="prod"))
        self.server.put(slice_of("web-6", endpoint("::1"), endpoint("::ffff:127.0.0.1"), port=port, service="web",
                                 space="prod", addressType="IPv6"))
        agent = self.started(health={"interval": "100ms"})
        self.wait_for_found(agent, {"prod/web:http": []})
        self.assertIn("nor are 5 more: left out", self.report(agent, "prod/web:http")["source_error"])
        self.wait_for_answers(agent, "10.96.1.1", 80, {"Connection refused"})
        self.assertRaises(BlockingIOError, secret.accept)  # nobody has come, no check either


if __name__ == "__main__":
    run()
