# SPDX-License-Identifier: Apache-2.0
"""What connections through a balancer cost: `bench/run balance`.

Three servers on the host; the same clients reach them directly, from a container by a service of `shunt run`, through a
proxy (HAProxy in TCP mode, nginx's stream module), and by DNAT of nftables.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time

from scenarios.scenario import Scenario
from scenarios.servers import nginx, read_wrk, serve, web_server
from scenarios.stage import HOST, Unavailable

SERVICE = "10.96.0.10"
DIRECT = ["native", "shunt"]  # without a balancer: the client takes one server after the other
HEAD_START = 1.0  # seconds: until then a container is there
STREAM_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"


def busy_seconds():
    """CPU time that the whole machine has used."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(word) for word in file.readline().split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


class Balance(Scenario):
    title = "connections to one of three servers on the host"
    # The proxies are reached by clients on the host, who are as near as can be, and from a container like the services'.
    arms = [*DIRECT, "services", "haproxy", "nginx", "nftables", "shunt+haproxy", "shunt+nginx"]
    as_root = True  # for nftables
    haproxy_backend = ""  # more lines
    metrics = {"connect+echo+close p50": ("us", "lower"), "connect+echo+close p99": ("us", "lower"),
               "8 threads": ("/s", "higher"), "CPU per connection": ("us", "lower"),
               "wrk, 16 kept connections": ("/s", "higher"), "CPU per request": ("us", "lower")}

    def prepare(self):
        self.folder = tempfile.mkdtemp(prefix="balance-")
        self.next_port = 20000

    def ports(self, count):
        self.next_port += count
        return [str(port) for port in range(self.next_port - count, self.next_port)]

    def serve(self, command, port):
        serve(self.stage, command, port, self.folder)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def web_servers(self):
        ports = self.ports(3)
        self.serve(web_server(self.folder, ports), ports[0])
        return ports

    def way(self, arm, ports):
        """(prefix of the client's command, address, port) by which the arm reaches one of these; directly, the first."""
        listed = [f"{HOST}:{port}" for port in ports]
        if arm in DIRECT:
            return self.stage.arm_prefix(arm), HOST, ports[0]
        if arm == "services":
            path = self.write("services.yaml", f"services:\n  - {{name: bench, address: '{SERVICE}:80', "
                              f"backends: [{', '.join(listed)}]}}\n")
            prefix = self.stage.arm_prefix("shunt")
            return [*prefix[:-1], "--services", path, "--"], SERVICE, "80"
        if arm == "nftables":
            self.translate(ports)
            return [], SERVICE, "80"
        network, _, proxy = arm.rpartition("+")
        port = self.ports(1)[0]
        self.serve({"haproxy": self.haproxy, "nginx": self.nginx_stream}[proxy](listed, port), port)
        return self.stage.arm_prefix(network or "native"), HOST, port

    def haproxy(self, listed, port):
        servers = "\n".join(f"  server s{i} {address}" for i, address in enumerate(listed))
        return ["haproxy", "-f", self.write("haproxy.cfg", f"""global
  nbthread {len(os.sched_getaffinity(0))}
  maxconn 8000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind {HOST}:{port} backlog 4096
  default_backend b
backend b
  balance roundrobin
{self.haproxy_backend}
{servers}
""")]

    def nginx_stream(self, listed, port):
        if not os.path.exists(STREAM_MODULE):
            raise Unavailable("libnginx-mod-stream is not installed")
        servers = " ".join(f"server {address};" for address in listed)
        return nginx(self.folder, "stream", "stream {{ upstream u {{ " + servers + " }} server {{ listen " +
                     f"{HOST}:{port}" + " backlog=4096; proxy_pass u; }} }}", f"load_module {STREAM_MODULE};",
                     len(os.sched_getaffinity(0)))

    def translate(self, ports):
        if shutil.which("nft") is None:
            raise Unavailable("nftables is not installed")
        numbers = ", ".join(f"{i} : {port}" for i, port in enumerate(ports))
        rules = f"""table ip balance {{}}
delete table ip balance
table ip balance {{
  chain output {{
    type nat hook output priority -100;
    ip daddr {SERVICE} tcp dport 80 dnat to {HOST} : numgen inc mod {len(ports)} map {{ {numbers} }}
  }}
}}
"""
        result = subprocess.run(["nft", "-f", self.write("rules", rules)], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise Unavailable(f"nftables cannot do it here: {result.stderr.strip().splitlines()[0][:160]}")

    def client(self, address, port, *options):
        return [self.stage.program("connect_client"), "--mode", "echo", "--address", address, "--port", port, *options]

    def timed(self, command):
        """(output, CPU seconds of the whole machine) of a command that does nothing but to come up for a second."""
        process = self.stage.start(command)
        time.sleep(HEAD_START)
        busy = busy_seconds()
        output = self.stage.finish(process, command, 60)
        return output, busy_seconds() - busy

    def measure(self, arm):
        self.stage.stop_servers()
        echoes = [self.stage.echo_server("1") for _ in range(3)]
        prefix, address, port = self.way(arm, echoes)
        if arm in DIRECT:
            port = ",".join(echoes)
        count = "200" if self.tiny else "5000"
        one = self.sound(self.stage.json(prefix + self.client(address, port, "--count", count)))
        begin = ["--start-at", str(time.time() + HEAD_START + 0.05)]
        output, busy = self.timed(prefix + self.client(address, port, "--seconds", str(self.seconds), "--threads", "8", *begin))
        many = self.sound(json.loads(output))
        self.stage.stop_servers()
        return {**self.latencies(one, ["p50", "p99"], "connect+echo+close"), **self.rate(many, "8 threads"),
                "CPU per connection": busy / max(many["samples"], 1) * 1e6, **self.kept(arm)}

    def kept(self, arm):
        """Requests on connections that stay: what a balancer costs once it has balanced."""
        if shutil.which("wrk") is None:
            raise Unavailable("wrk is not installed")
        prefix, address, port = self.way(arm, self.web_servers())
        wrk = f"sleep {HEAD_START}; exec wrk -t2 -c16 -d{max(1, round(self.seconds))}s http://{address}:{port}/"
        output, busy = self.timed([*prefix, "sh", "-c", wrk])
        self.stage.stop_servers()
        requests, per_second, _ = read_wrk(output)
        return {"wrk, 16 kept connections": per_second, "CPU per request": busy / requests * 1e6}
