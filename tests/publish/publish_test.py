#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Published ports of `shunt run`, as an ordinary user, in an arena.

    publish_test.py --shunt PROGRAM [Program|Helper|Program.test_name ...]

Program: with the eBPF lock, from a lock server that runs as root; listeners move to the host.
Helper: without it, so that slirp4netns or pasta forwards the ports.

In each container runs a small Python program that evaluates what the test sends it (`inside.do(...)`); the
test itself is on the host, and the other machine is reached by `far(...)`.
"""
import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
import stage  # noqa: E402
from stage import *  # noqa: E402,F403


class Program(PublishTest):
    options = ("--net", "slirp4netns")

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp()
        os.chmod(folder, 0o755)
        cls.addClassCleanup(shutil.rmtree, folder)
        server = LockServer(folder)
        cls.addClassCleanup(server.stop)
        cls.lock = server.socket

    # Who may reach it.

    def test_clients_come_with_their_own_addresses(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('0.0.0.0', 80))")
        self.assertEqual(far(f"ask('{HOST}', 8080)"), [PEER, [HOST, 80], ""])
        self.assertEqual(ask(HOST, 8080), [HOST, [HOST, 80], ""])
        self.assertEqual(ask("127.0.0.1", 8080), ["127.0.0.1", ["127.0.0.1", 80], ""])
        self.assertEqual(reach("::1", 8080), "ECONNREFUSED")

    def test_a_dual_stack_listener_serves_both_families(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('::', 80, 'DUAL'))")
        self.assertEqual(far(f"ask('{HOST}', 8080)"), ["::ffff:" + PEER, ["::ffff:" + HOST, 80], ""])
        self.assertEqual(far(f"ask('{HOST6}', 8080)"), ["fd00:113::2", [HOST6, 80], ""])
        self.assertEqual(ask("::1", 8080)[0], "::1")

    def test_an_ipv6_only_listener_leaves_ipv4_alone(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('::', 80, 'V6ONLY'), 'six')")
        self.assertEqual(ask(HOST, 8080), "ECONNREFUSED")
        self.assertEqual(ask(HOST6, 8080)[2], "six")
        # And its IPv4 half beside it, as nginx has it.
        inside.do("t = answer(listener('0.0.0.0', 80), 'four')")
        self.assertEqual(ask(HOST, 8080)[2], "four")
        self.assertEqual(inside.do("[s.getsockname()[:2], t.getsockname()]"), [["::", 80], ["0.0.0.0", 80]])

    def test_a_host_address_is_kept(self):
        inside = self.start("127.0.0.1:8080:80", f"{HOST}:8081:81", f"[{HOST6}]:8082:82")
        inside.do("s = [answer(listener('0.0.0.0', 80)), answer(listener('::', 81, 'DUAL')), answer(listener('::', 82, 'DUAL'))]")
        self.assertEqual(ask("127.0.0.1", 8080)[0], "127.0.0.1")
        self.assertEqual(reach(HOST, 8080), "ECONNREFUSED")
        self.assertEqual(ask(HOST, 8081)[0], "::ffff:" + HOST)
        self.assertEqual(reach("127.0.0.1", 8081), "ECONNREFUSED")
        self.assertEqual(ask(HOST6, 8082)[0], HOST6)
        self.assertEqual(reach(HOST, 8082), "ECONNREFUSED")

    def test_an_ipv4_host_address_does_not_go_with_an_ipv6_only_socket(self):
        inside = self.start("127.0.0.1:8080:80")
        self.assertEqual(inside.do("tcp(V6, 'V6ONLY').bind(('::', 80))"), "EINVAL")

    def test_an_ipv6_host_address_is_none_for_an_ipv4_socket(self):
        inside = self.start("[::1]:8080:80")
        inside.do("s = answer(listener('0.0.0.0', 80))")
        self.assertEqual(reach("::1", 8080), "ECONNREFUSED")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ok")

    def test_each_family_may_have_a_host_address(self):
        inside = self.start("127.0.0.1:8080:80", "[::1]:8081:80")
        inside.do("s = answer(listener('::', 80, 'V6ONLY'), 'six'), answer(listener('0.0.0.0', 80), 'four')")
        self.assertEqual(ask("127.0.0.1", 8080)[2], "four")
        self.assertEqual(ask("::1", 8081)[2], "six")

    def test_what_is_not_published_stays_inside(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('0.0.0.0', 81)), answer(listener('127.0.0.1', 80))")
        for port in 80, 81, 8080:
            self.assertEqual(reach(HOST, port), "ECONNREFUSED", port)
            self.assertEqual(reach("127.0.0.1", port), "ECONNREFUSED", port)
        self.assertEqual(inside.do("[reach('127.0.0.1', 80), reach('127.0.0.1', 81), reach('10.0.2.100', 81)]"),
                         ["ok", "ok", "ok"])
        self.assertEqual(inside.do("reach('10.0.2.100', 80)"), "ECONNREFUSED")

    # What the program is told.

    def test_a_taken_host_port_is_in_use(self):
        self.keep(listener(HOST, 8080))
        inside = self.start("8080:80")
        for options in "", ", 'SO_REUSEADDR'", ", 'SO_REUSEPORT'", ", 'SO_REUSEADDR', 'SO_REUSEPORT'":
            self.assertEqual(inside.do(f"tcp(V4{options}).bind(('0.0.0.0', 80))"), "EADDRINUSE", options)
        inside.do("s = tcp()")
        self.assertEqual(inside.do("s.bind(('0.0.0.0', 80))"), "EADDRINUSE")
        self.doCleanups()

    def test_a_program_may_try_again_on_the_same_socket(self):
        taken = listener("0.0.0.0", 8080)
        inside = self.start("8080:80")
        inside.do("s = tcp()")
        self.assertEqual(inside.do("s.bind(('0.0.0.0', 80))"), "EADDRINUSE")
        taken.close()
        inside.do("s.bind(('0.0.0.0', 80)); s.listen(5); answer(s)")
        self.assertEqual(ask("127.0.0.1", 8080)[0], "127.0.0.1")

    def test_a_privileged_host_port_is_refused(self):
        inside = self.start("81:8081")
        self.assertEqual(inside.do("tcp().bind(('0.0.0.0', 8081))"), "EACCES")
        self.assertEqual(inside.do("tcp(V6).bind(('::', 8081))"), "EACCES")
        self.assertEqual(inside.do("tcp(V4, 'SO_REUSEPORT').bind(('0.0.0.0', 8081))"), "EACCES")

    def test_signals_do_not_make_a_bind_fail(self):
        inside = self.start("8080:80")
        inside.do("def once():\n    with tcp(V4, 'SO_REUSEADDR') as s:\n        s.bind(('0.0.0.0', 80))\n")
        inside.do("signal.signal(signal.SIGALRM, lambda *_: None); signal.siginterrupt(signal.SIGALRM, False)")
        inside.do("signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)")
        failed = inside.do("sum(tried(once) != 'ok' for _ in range(500))")
        inside.do("signal.setitimer(signal.ITIMER_REAL, 0)")
        # That a signal has come in the very instant of an answer cannot be known: one call in a hundred here.
        self.assertLess(failed, 15)

    def test_the_containers_own_errors_are_its_own(self):
        inside = self.start("8080:80")
        self.assertEqual(inside.do("tcp().bind(('192.0.2.77', 80))"), "EADDRNOTAVAIL")
        inside.do("first = listener('0.0.0.0', 80)")
        self.assertEqual(inside.do("tcp().bind(('0.0.0.0', 80))"), "EADDRINUSE")
        self.assertEqual(inside.do("first.bind(('0.0.0.0', 80))"), "EINVAL")
        self.assertEqual(inside.do("first.bind(('0.0.0.0', 82))"), "EINVAL")
        self.assertEqual(inside.do("first.bind(('192.0.2.77', 82))"), "EADDRNOTAVAIL")

    def test_a_privileged_port_inside_takes_privilege_inside(self):
        inside = self.start("8080:80", options=("--user", "1000"))
        self.assertEqual(inside.do("tcp().bind(('0.0.0.0', 80))"), "EACCES")
        self.assertEqual(inside.do("tcp().bind(('0.0.0.0', 79))"), "EACCES")
        self.assertEqual(reach("127.0.0.1", 8080), "ECONNREFUSED")

    def test_getsockname_shows_what_the_program_bound(self):
        inside = self.start("8080:80", f"{HOST}:8081:8081")
        inside.do("s = tcp(); s.bind(('10.0.2.100', 80))")
        self.assertEqual(inside.do("s.getsockname()"), [INSIDE, 80])
        inside.do("s.listen(5)")
        self.assertEqual(inside.do("s.getsockname()"), [INSIDE, 80])
        client = self.keep(connected(HOST, 8080))
        inside.do("c = s.accept()[0]")
        self.assertEqual(inside.do("[c.getsockname(), c.getpeername()]"), [[HOST, 80], list(client.getsockname())])
        inside.do("t = listener('0.0.0.0', 8081)")
        self.assertEqual(inside.do("t.getsockname()"), ["0.0.0.0", 8081])
        # A listener that was shut down keeps its name, an accepted socket that was reset keeps its own.
        inside.do("s.shutdown(socket.SHUT_RDWR)")
        self.assertEqual(inside.do("s.getsockname()"), [INSIDE, 80])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.assertEqual(inside.do("c.recv(1)"), "ECONNRESET")
        self.assertEqual(inside.do("c.getsockname()"), [HOST, 80])

    def test_getsockname_with_any_length_and_pointer_is_native(self):
        code = """
            libc = ctypes.CDLL(None, use_errno=True)
            page = ctypes.CDLL(None)
            def raw(s, length, bad_name=False, bad_length=False):
                name = ctypes.create_string_buffer(b"\\xee" * 64, 64)
                size = ctypes.c_int(length)
                ctypes.set_errno(0)
                result = libc.getsockname(s.fileno(), ctypes.c_void_p(1) if bad_name else name,
                                          ctypes.c_void_p(1) if bad_length else ctypes.byref(size))
                return [result, errno.errorcode.get(ctypes.get_errno(), "0"), size.value, name.raw[:20].hex()]
            def all(s):
                return [raw(s, n) for n in (0, 1, 2, 3, 7, 15, 16, 17, 28, 64, -1, -2147483648, 2147483647)
                       ] + [raw(s, 16, bad_name=True), raw(s, 0, bad_name=True), raw(s, -1, bad_name=True),
                            raw(s, 16, bad_length=True)]
        """
        world = {**globals()}
        exec(textwrap.dedent(code), world)  # pylint: disable=exec-used
        native = world["all"](self.keep(listener("0.0.0.0", 8085)))
        inside = self.start("8080:8085")
        inside.do(code)
        inside.do("s = listener('0.0.0.0', 8085)")
        self.assertEqual(reach("127.0.0.1", 8080), "ok")
        self.assertEqual(inside.do("all(s)"), native)

    # The container reaches its own port.

    def test_the_container_reaches_its_own_port_by_loopback_and_by_its_own_address(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('0.0.0.0', 80))")
        for ip in "127.0.0.1", "127.0.0.2", "0.0.0.0", INSIDE:
            self.assertEqual(inside.do(f"ask('{ip}', 80)"), ["127.0.0.1", ["127.0.0.1", 80], ""], ip)
        self.assertEqual(inside.do("ask('::ffff:127.0.0.1', 80)")[0], "127.0.0.1")
        self.assertEqual(inside.do("ask('::1', 80)"), "ECONNREFUSED")
        # The number on the host means nothing inside.
        self.assertEqual(inside.do("ask('127.0.0.1', 8080)"), "ECONNREFUSED")

    def test_the_container_reaches_its_own_port_over_ipv6(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('::', 80, 'DUAL'))")
        for ip, seen in (("::1", "::1"), ("::", "::1"), ("127.0.0.1", "::ffff:127.0.0.1"),
                         ("::ffff:127.0.0.1", "::ffff:127.0.0.1")):
            self.assertEqual(inside.do(f"ask('{ip}', 80)")[0], seen, ip)

    def test_the_container_reaches_its_own_port_at_a_host_address(self):
        inside = self.start(f"{HOST}:8080:80", f"[{HOST6}]:8081:81")
        inside.do("s = answer(listener('0.0.0.0', 80)), answer(listener('::', 81, 'DUAL'))")
        self.assertEqual(inside.do("ask('127.0.0.1', 80)")[0], HOST)
        self.assertEqual(inside.do("ask('10.0.2.100', 80)")[0], HOST)
        self.assertEqual(inside.do("ask('::1', 81)")[0], HOST6)

    def test_only_addresses_that_the_program_has_bound_lead_there(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('10.0.2.100', 80))")
        self.assertEqual(inside.do("reach('10.0.2.100', 80)"), "ok")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ECONNREFUSED")

    def test_children_and_nonblocking_clients_reach_it_too(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('0.0.0.0', 80))")
        inside.do("""
            c = tcp(); c.setblocking(False)
            first = c.connect_ex(('127.0.0.1', 80))
            ready = select.select([], [c], [], 5)[1]
            error = c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        """)
        self.assertEqual(inside.do("[errno.errorcode[first], len(ready), error]"), ["EINPROGRESS", 1, 0])
        self.assertEqual(inside.do("[c.getsockname()[0], c.getpeername()[0]]"), ["127.0.0.1", "127.0.0.1"])
        self.assertEqual(inside.do("subprocess.run([sys.executable, '-c', 'import socket; "
                                   "socket.create_connection((\"localhost\", 80))']).returncode"), 0)

    def test_a_refused_twin_reaches_it_too(self):
        inside = self.start("8080:80")
        inside.do("s = answer(listener('0.0.0.0', 80)); c = tcp()")
        self.assertEqual(inside.do(f"c.connect(('{HOST}', 9))"), "ECONNREFUSED")
        inside.do("c.connect(('127.0.0.1', 80)); c.sendall(b'?')")
        self.assertEqual(json.loads(inside.do("c.recv(999).decode()"))[0], "127.0.0.1")
        # And a twin that was there comes home again.
        inside.do("s.shutdown(socket.SHUT_RDWR); s.close(); c = tcp()")
        inside.do("t = answer(listener('127.0.0.1', 80), 'inside')")
        self.assertEqual(inside.do("ask('127.0.0.1', 80)")[2], "inside")

    def test_a_stranger_on_the_host_is_never_reached(self):
        """By what the program asks for; what it can do by exchanging its memory is for tests/hostile."""
        inside = self.start("8080:80")
        stranger = self.keep(listener("127.0.0.1", 8080))
        stranger.settimeout(0)
        everywhere = "[reach(ip, 80) for ip in ('127.0.0.1', '0.0.0.0', '10.0.2.100', '::1', '::ffff:127.0.0.1')]"
        # Before the container has listened at all.
        self.assertEqual(inside.do(everywhere), ["ECONNREFUSED"] * 5)
        stranger.close()
        # After it has, and its listener has gone.
        inside.do("s = listener('0.0.0.0', 80)")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ok")
        inside.do("s.close()")
        again = self.keep(listener("127.0.0.1", 8080, "SO_REUSEADDR"))
        again.settimeout(0)
        self.assertEqual(inside.do(everywhere), ["ECONNREFUSED"] * 5)
        # A listener that has only stopped listening.
        self.assertEqual(tried(again.accept), "EAGAIN")
        again.close()
        inside.do("s = listener('0.0.0.0', 80, 'SO_REUSEADDR'); s.shutdown(socket.SHUT_RDWR)")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ECONNREFUSED")

    def test_a_stranger_beside_the_containers_listener_is_never_reached(self):
        # Of our own uid, so that the kernel lets it share the port. 127.0.0.1 is a better match than 0.0.0.0.
        inside = self.start("8080:80")
        inside.do("s = answer(listener('0.0.0.0', 80, 'SO_REUSEPORT'))")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ok")
        stranger = subprocess.Popen(
            ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "/usr/bin/python3", "-c", COMMON +
             "\ns = listener('127.0.0.1', 8080, 'SO_REUSEPORT')\nprint(flush=True)\ns.accept()\nprint('reached')"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        self.addCleanup(stranger.stdout.close)
        self.assertEqual(stranger.stdout.readline(), "\n", "the stranger could not listen")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ECONNREFUSED")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ECONNREFUSED")
        self.assertEqual(select.select([stranger.stdout], [], [], 0)[0], [])

    # How servers do it.

    def test_a_master_binds_and_its_workers_accept(self):
        inside = self.start("8080:80")
        inside.do("""
            s = listener('0.0.0.0', 80)
            workers = []
            for i in range(3):
                pid = os.fork()
                if pid == 0:
                    c, where = s.accept()
                    c.sendall(b'w')
                    os._exit(0)
                workers.append(pid)
        """)
        for _ in range(3):
            with connected("127.0.0.1", 8080) as client:
                self.assertEqual(client.recv(1), b"w")
        self.assertEqual(inside.do("[os.waitpid(pid, 0)[1] for pid in workers]"), [0, 0, 0])

    def test_workers_with_listeners_of_their_own_share_a_port(self):
        inside = self.start("8080:80")
        inside.do("""
            workers = []
            for i in range(4):
                pid = os.fork()
                if pid == 0:
                    s = listener('0.0.0.0', 80, 'SO_REUSEPORT')
                    answer(s, 'worker')
                    signal.pause()
                workers.append(pid)
        """)
        deadline = time.monotonic() + PATIENCE
        while reach("127.0.0.1", 8080) != "ok" and time.monotonic() < deadline:
            time.sleep(0.005)
        self.assertEqual([ask("127.0.0.1", 8080)[2] for _ in range(40)], ["worker"] * 40)
        self.assertEqual(inside.do("[ask('127.0.0.1', 80)[2] for i in range(10)]"), ["worker"] * 10)
        # The group keeps out who does not share, and survives his attempt.
        self.assertEqual(inside.do("tcp(V4, 'SO_REUSEADDR').bind(('0.0.0.0', 80))"), "EADDRINUSE")
        inside.do("fifth = answer(listener('0.0.0.0', 80, 'SO_REUSEPORT'), 'worker')")
        inside.do("[os.kill(pid, signal.SIGKILL) and os.waitpid(pid, 0) for pid in workers]; fifth.shutdown(2); fifth.close()")
        inside.do("[os.waitpid(pid, 0) for pid in workers]")
        # When it has gone the port is for one alone again.
        inside.do("alone = answer(listener('0.0.0.0', 80), 'alone')")
        self.assertEqual(ask("127.0.0.1", 8080)[2], "alone")
        self.assertEqual(inside.do("tcp(V4, 'SO_REUSEPORT').bind(('0.0.0.0', 80))"), "EADDRINUSE")

    def test_a_group_in_both_families_shares_a_port(self):
        inside = self.start("8080:80")
        inside.do("""
            four = [answer(listener('0.0.0.0', 80, 'SO_REUSEPORT'), '4') for i in range(2)]
            six = [answer(listener('::', 80, 'SO_REUSEPORT', 'V6ONLY'), '6') for i in range(2)]
        """)
        self.assertEqual(ask("127.0.0.1", 8080)[2], "4")
        self.assertEqual(ask("::1", 8080)[2], "6")

    def test_sharing_does_not_steal_from_strangers_of_the_same_user(self):
        first, second = self.start("8080:80"), self.start("8080:80")
        first.do("s = answer(listener('0.0.0.0', 80, 'SO_REUSEPORT'), 'first')")
        self.assertEqual(second.do("listener('0.0.0.0', 80, 'SO_REUSEPORT')"), "EADDRINUSE")
        # Not even while the first has no socket there for a moment.
        first.do("s.shutdown(2); s.close()")
        self.assertEqual(second.do("listener('0.0.0.0', 80, 'SO_REUSEPORT', 'SO_REUSEADDR')"), "EADDRINUSE")
        first.do("s = answer(listener('0.0.0.0', 80, 'SO_REUSEPORT'), 'first')")
        self.assertEqual({ask("127.0.0.1", 8080)[2] for _ in range(30)}, {"first"})
        first.stop()
        second.do("s = answer(listener('0.0.0.0', 80, 'SO_REUSEPORT'), 'second')")
        self.assertEqual(ask("127.0.0.1", 8080)[2], "second")

    def test_a_port_is_free_again_after_close(self):
        inside = self.start("8080:80")
        for turn in range(20):
            inside.do(f"s = answer(listener('0.0.0.0', 80, 'SO_REUSEADDR'), '{turn}')")
            self.assertEqual(ask("127.0.0.1", 8080)[2], str(turn))
            self.assertEqual(inside.do("ask('127.0.0.1', 80)")[2], str(turn))
            inside.do("s.shutdown(2); s.close()")
        self.assertEqual(reach("127.0.0.1", 8080), "ECONNREFUSED")

    def test_a_port_is_free_again_when_its_container_has_ended(self):
        keep_time_wait(1000)
        for options in "'SO_REUSEADDR'", "'SO_REUSEADDR', 'SO_REUSEPORT'", "'SO_REUSEADDR'":
            inside = self.start("8090:80")
            inside.do(f"s = answer(listener('0.0.0.0', 80, {options}))")
            self.assertEqual(ask(HOST, 8090)[0], HOST)
            inside.stop()
            self.assertEqual(reach(HOST, 8090), "ECONNREFUSED")
        # As it is natively: the old connections are still there.
        inside = self.start("8090:80")
        self.assertEqual(inside.do("tcp().bind(('0.0.0.0', 80))"), "EADDRINUSE")
        self.assertEqual(tried(self.keep(tcp()).bind, ("0.0.0.0", 8090)), "EADDRINUSE")

    def test_listening_twice_and_after_a_shutdown(self):
        inside = self.start("8080:80")
        inside.do("s = listener('0.0.0.0', 80); s.listen(1); s.listen(64)")
        self.assertEqual(reach("127.0.0.1", 8080), "ok")
        inside.do("s.shutdown(socket.SHUT_RDWR)")
        self.assertEqual(reach("127.0.0.1", 8080), "ECONNREFUSED")
        inside.do("s.listen(5)")
        self.assertEqual(reach("127.0.0.1", 8080), "ok")
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ok")

    def test_an_epoll_that_watched_before_the_bind_hears_of_clients(self):
        inside = self.start("8080:80")
        inside.do("""
            s = tcp()
            e = select.epoll()
            e.register(s, select.EPOLLIN)
            before = [(s.fileno() == fd, events) for fd, events in e.poll(0)]
            s.bind(('0.0.0.0', 80)); s.listen(5)
            idle = [(s.fileno() == fd, events) for fd, events in e.poll(0)]
        """)
        self.assertEqual(inside.do("[before, idle]"), [[[True, select.EPOLLHUP]], []])
        self.keep(connected("127.0.0.1", 8080))
        self.assertEqual(inside.do("[(s.fileno() == fd, events) for fd, events in e.poll(5)]"), [[True, select.EPOLLIN]])

    def test_a_socket_with_other_holders_stays_one_socket(self):
        inside = self.start("8080:80")
        inside.do("s = tcp(); t = s.dup(); s.bind(('0.0.0.0', 80)); t.listen(5)")
        self.assertEqual(inside.do("[s.getsockname(), t.getsockname()]"), [["0.0.0.0", 80], ["0.0.0.0", 80]])
        self.assertEqual(inside.do("reach('127.0.0.1', 80)"), "ok")
        inside.do("s.settimeout(5)")
        inside.do("c = s.accept()[0]")

    def test_options_of_the_listener_are_kept(self):
        inside = self.start("8080:80")
        self.assertEqual(inside.do("""[ (s := tcp(V4, 'SO_REUSEADDR', 'SO_KEEPALIVE')) and None,
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 0),
            s.setblocking(False), s.set_inheritable(True), s.bind(('0.0.0.0', 80)), s.listen(5),
            s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR), s.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), s.getblocking(), s.get_inheritable(),
            s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)][7:]"""), [1, 1, 1, False, True, 1])
        self.assertEqual(inside.do("s.accept()"), "EAGAIN")

    def test_asyncio_serves_and_reaches_itself(self):
        inside = self.start("8080:80")
        self.assertEqual(inside.do("""
            import asyncio
            async def main():
                async def serve(reader, writer):
                    writer.write(await reader.readline()); await writer.drain(); writer.close()
                server = await asyncio.start_server(serve, '0.0.0.0', 80)
                reader, writer = await asyncio.open_connection('127.0.0.1', 80)
                writer.write(b'hello\\n')
                return (await reader.readline()).decode()
            result = asyncio.run(main())
        """), None)
        self.assertEqual(inside.do("result"), "hello\n")

    @unittest.skipUnless(shutil.which("nginx", path="/usr/sbin:/usr/bin"), "nginx is not installed")
    def test_nginx_with_reuseport_and_reload(self):
        folder = tempfile.mkdtemp(dir=os.environ["TMPDIR"])
        os.chown(folder, USER, USER)
        configuration = os.path.join(folder, "nginx.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(f"""
                daemon off; worker_processes 2; pid {folder}/pid; error_log {folder}/error.log; user root;
                events {{}}
                http {{
                  access_log off;
                  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
                  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
                  server {{ listen 80 reuseport; listen [::]:80 reuseport; return 200 "$remote_addr $server_port"; }}
                }}"""))
        inside = self.start("8080:80")
        inside.do(f"n = subprocess.Popen(['/usr/sbin/nginx', '-e', '{folder}/error.log', '-c', '{configuration}'], stdout=2)")

        def get(place, where):
            opener = "urllib.request.build_opener(urllib.request.ProxyHandler({}))"
            return where(f"{opener}.open('http://{place}/', timeout=5).read().decode()")

        deadline = time.monotonic() + PATIENCE
        while reach("127.0.0.1", 8080) != "ok" or reach("::1", 8080) != "ok":
            self.assertLess(time.monotonic(), deadline, inside.do(f"open('{folder}/error.log').read()"))
            time.sleep(0.01)
        for _ in range(2):
            self.assertEqual(get(f"{HOST}:8080", far), f"{PEER} 80")
            self.assertEqual(get("127.0.0.1", inside.do), "127.0.0.1 80")
            self.assertEqual(get("[::1]", inside.do), "::1 80")
            inside.do("n.send_signal(signal.SIGHUP)")
        inside.do("n.send_signal(signal.SIGTERM)")
        self.assertEqual(inside.do("n.wait(10)"), 0)
        self.assertEqual(reach("127.0.0.1", 8080), "ECONNREFUSED")


class Helper(PublishTest):
    """Without the eBPF lock."""

    def check(self, network):
        if shutil.which(network) is None:
            self.skipTest(f"{network} is not installed")
        inside = self.start("8080:80", "127.0.0.1:8081:81", options=("--net", network))
        inside.do("s = answer(listener('0.0.0.0', 80), 'a'), answer(listener('0.0.0.0', 81), 'b')")
        self.assertEqual(far(f"ask('{HOST}', 8080)")[2], "a")
        self.assertEqual(ask("127.0.0.1", 8081)[2], "b")
        self.assertEqual(reach(HOST, 8081), "ECONNREFUSED")
        self.assertEqual(inside.do("s[0].getsockname()"), ["0.0.0.0", 80])
        self.assertEqual(inside.do("[ask('127.0.0.1', 80)[2], ask('10.0.2.100', 80)[2]]"), ["a", "a"])
        self.assertIn("forwarded by the network program", inside.stop())
        self.assertEqual(reach("127.0.0.1", 8080), "ECONNREFUSED")

    def test_slirp4netns_forwards(self):
        self.check("slirp4netns")

    def test_pasta_forwards(self):
        self.check("pasta")

    def test_without_any_helper_it_is_said_and_nothing_starts(self):
        inside = self.start("8080:80", options=("--net", "none"))
        inside.process.wait(PATIENCE)
        self.assertRegex(inside.stop(), r"--publish 8080:80 is not possible with --net none")
        self.assertEqual(inside.process.returncode, 1)

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shunt", required=True)
    arguments, rest = parser.parse_known_args()
    stage.SHUNT = os.path.realpath(arguments.shunt)
    if "ARENA_FAR" not in os.environ:
        os.execv(ARENA, [ARENA, "--", sys.executable, *sys.argv])
    for program in ("newuidmap", "slirp4netns"):
        if shutil.which(program) is None:
            print(f"skipped: {program} is not installed")
            return SKIP
    return 0 if unittest.main(argv=[sys.argv[0], "-v", *rest], exit=False).result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
