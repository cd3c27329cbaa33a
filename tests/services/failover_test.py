#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Real clients in a container use a service, of whose three servers one is killed and started again all the time.

    failover_test.py --shunt PROGRAM [TEST]

Inside tests/support/arena. No client may see a connect that fails. Two things are not ours, and are counted apart and
printed: a connection that had been made to a server and dies with it, and a nonblocking connect whose refusal was not there
yet when it was answered. On one machine that takes a kernel which leaves the refusal to its ksoftirqd, some in ten thousand
where the CPUs are busy; the engine counts them, and more than it counted may not fail.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from stage import PYTHON_CLIENT, Killer, arguments, nginx, redis, write_services  # noqa: E402

ARGS = None
SERVICE = "10.96.0.10:80"
SECONDS = 3  # that a client connects for: tens of kills

# As PYTHON_CLIENT does.
JAVA_CLIENT = textwrap.dedent("""
    import java.net.*;
    import java.io.*;
    class Loop {
      public static void main(String[] a) throws Exception {
        int failed = 0, reset = 0, answers = 0;
        long end = System.nanoTime() + Integer.parseInt(a[2]) * 1000000000L;
        while (System.nanoTime() < end) {
          Socket s = new Socket();
          try { s.connect(new InetSocketAddress(a[0], Integer.parseInt(a[1]))); }
          catch (IOException e) { failed++; System.err.println("connect: " + e); continue; }
          try {
            s.getOutputStream().write("GET / HTTP/1.0\\r\\n\\r\\n".getBytes());
            String text = new String(s.getInputStream().readAllBytes());
            if (text.contains("200 OK")) answers++; else reset++;
          } catch (IOException e) { reset++; }
          s.close();
        }
        System.out.println(failed + " " + reset + " " + answers);
      }
    }
""")

GO_CLIENT = textwrap.dedent("""
    package main
    import ("bufio"; "fmt"; "net"; "os"; "strconv"; "strings"; "time")
    func main() {
      seconds, _ := strconv.Atoi(os.Args[3])
      end := time.Now().Add(time.Duration(seconds) * time.Second)
      failed, reset, answers := 0, 0, 0
      for time.Now().Before(end) {
        c, err := net.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
        if err != nil && strings.Contains(err.Error(), "reset") { reset++; continue }
        if err != nil { failed++; fmt.Fprintln(os.Stderr, err); continue }
        fmt.Fprintf(c, "GET / HTTP/1.0\\r\\n\\r\\n")
        line, err := bufio.NewReader(c).ReadString('\\n')
        if err == nil && strings.Contains(line, "200 OK") { answers++ } else { reset++ }
        c.Close()
      }
      fmt.Println(failed, reset, answers)
    }
""")


def compiled(name, text, command, folder):
    """Where the client is; None: this machine has no compiler for it."""
    if shutil.which(command[0]) is None:
        return None
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    environment = dict(os.environ, GOCACHE=os.path.join(folder, "go"), GO111MODULE="off", CGO_ENABLED="0", HOME=folder)
    subprocess.run([*command, path], check=True, cwd=folder, env=environment, timeout=200, stdout=subprocess.DEVNULL)
    return path


class Failover(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="services-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.config = os.path.join(self.folder, "agent.yaml")

    def begin(self, backends, more=""):
        for backend in backends:
            self.addCleanup(backend.kill)
            backend.start()
        write_services(self.config, SERVICE, backends, more)

    def in_container(self, *command):
        """Of one whose ordinary network leads nowhere."""
        return subprocess.run([ARGS.shunt, "run", "-v", "--net", "none", "--services", self.config, "--", *command],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=100, check=False)

    def assert_only_missed(self, failed, result, blocking=False):
        """Of those whose end the engine did not wait for, and says so: one or two at each kill."""
        counted = re.search(r"failover_missed (\d+)", result.stderr)
        missed = int(counted[1]) if counted else 0
        failed_over = int(re.search(r"failed_over (\d+)", result.stderr)[1])
        self.assertLessEqual(failed, 0 if blocking else missed, result.stderr)
        self.assertLess(failed, max(2, failed_over // 10), result.stderr)

    def web(self):
        backends = [nginx(self.folder, port) for port in (18081, 18082, 18083)]
        self.begin(backends)
        return backends

    def assert_no_connect_fails(self, *client, blocking):
        backends = self.web()
        host, port = SERVICE.split(":")
        with Killer(backends, seed=len(client)) as killer:
            result = self.in_container(*client, host, port, str(SECONDS))
        self.assertEqual(result.returncode, 0, result.stderr)
        failed, reset, answers = map(int, result.stdout.split())
        connects = failed + reset + answers
        print(f"{client[0]}: {connects} connects, {killer.kills} kills: {failed} failed, {reset} reset later", flush=True)
        self.assert_only_missed(failed, result, blocking)
        self.assertGreater(killer.kills, 3)
        self.assertGreater(answers, connects // 2)

    def test_python(self):
        self.assert_no_connect_fails("/usr/bin/python3", "-c", PYTHON_CLIENT, blocking=True)

    def test_java(self):
        if compiled("Loop.java", JAVA_CLIENT, ["javac", "-d", self.folder], self.folder) is None:
            self.skipTest("there is no javac")
        self.assert_no_connect_fails("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", self.folder, "Loop",
                                     blocking=True)

    def test_go(self):
        if compiled("loop.go", GO_CLIENT, ["go", "build", "-o", self.folder], self.folder) is None:
            self.skipTest("there is no go")
        self.assert_no_connect_fails(os.path.join(self.folder, "loop"), blocking=False)

    def test_curl(self):
        backends = self.web()
        # To curl a connection that was made and is reset before curl has looked at it is one that it could not make.
        script = """
            failed=0; reset=0
            for i in $(seq 150); do
              said=$(curl -sv -o /dev/null http://$0/ 2>&1)
              case $?,$said in
                0,*) ;;
                7,*"Connection reset"*) reset=$((reset+1));;
                7,*|28,*) failed=$((failed+1)); echo "$said" >&2;;
                *) reset=$((reset+1));;
              esac
            done
            echo $failed $reset"""
        with Killer(backends, seed=5) as killer:
            result = self.in_container("/bin/bash", "-c", script, SERVICE)
        failed, reset = map(int, result.stdout.split())
        print(f"curl: 150 connects, {killer.kills} kills: {failed} failed, {reset} reset later", flush=True)
        self.assert_only_missed(failed, result)
        self.assertGreater(killer.kills, 3)

    def test_wrk(self):
        backends = self.web()
        with Killer(backends, seed=6) as killer:
            result = self.in_container("wrk", "-t2", "-c16", "-d5s", "-H", "Connection: close", f"http://{SERVICE}/")
        self.assertEqual(result.returncode, 0, result.stderr)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", result.stdout)
        requests = int(re.search(r"(\d+) requests in", result.stdout)[1])
        connect, read = (int(errors[1]), int(errors[2])) if errors else (0, 0)
        print(f"wrk: {requests} requests, {killer.kills} kills: {connect} connects failed, {read} reset later", flush=True)
        self.assert_only_missed(connect, result)
        self.assertGreater(requests, 1000)
        self.assertGreater(killer.kills, 3)

    def test_redis(self):
        """redis-benchmark ends at the first connection that fails, and cannot live with a server that is killed: one
        server stays, and the others are away from the start or go before it connects."""
        servers = [redis(port) for port in (16381, 16382, 16383)]
        self.begin(servers)
        servers[0].kill()
        for _ in range(5):
            result = self.in_container("redis-benchmark", "-h", "10.96.0.10", "-p", "80", "-c", "20", "-n", "2000", "-t",
                                       "ping_inline", "-q")
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertIn("requests per second", result.stdout)
            self.assertNotIn("Could not connect", result.stdout + result.stderr)

    def test_everything_is_spread(self):
        backends = self.web()
        script = "for i in $(seq 60); do curl -s http://$0/; done"
        result = self.in_container("/bin/bash", "-c", script, SERVICE)
        ports = result.stdout.split()
        self.assertEqual(len(ports), 60, result.stderr)
        for backend in backends:
            self.assertGreater(ports.count(str(backend.port)), 4)

    def test_a_program_is_shown_whom_the_operator_wants(self):
        backend = nginx(self.folder, 18084)
        client = "import socket; s = socket.create_connection(('10.96.0.10', 80)); print('%s:%d' % s.getpeername())"
        for line, shown in (("", backend.address), ("    getpeername: service\n", SERVICE)):
            self.begin([backend], line)
            result = self.in_container("/usr/bin/python3", "-c", client)
            self.assertEqual(result.stdout.strip(), shown, result.stderr)
            backend.kill()


def main():
    global ARGS
    ARGS, rest = arguments("nginx", "redis-server", "wrk", "curl")
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
