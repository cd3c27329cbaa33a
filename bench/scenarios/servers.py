# SPDX-License-Identifier: Apache-2.0
"""Servers of others, unmodified, on the host: what scenarios with real programs share."""

import os
import re
import shutil
import subprocess
import time

from scenarios.sides import MOVE_PORTS, ON_HOST, Contained
from scenarios.stage import HOST, Failed, Unavailable

PATIENCE = 20  # seconds
NANOSECONDS = {"us": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9}


def installed(program, package=None):
    """Its path. Raises Unavailable, which names the package."""
    path = shutil.which(program)
    if path is None:
        raise Unavailable(f"{program} is not installed: apt-get install {package or program}")
    return path


def listens(port, who="self"):
    """Whether anybody does in the network of that process."""
    for path in [f"/proc/{who}/net/tcp", f"/proc/{who}/net/tcp6"]:
        try:
            with open(path, encoding="ascii") as file:
                lines = list(file)[1:]
        except OSError:
            continue  # it has ended
        for line in lines:
            fields = line.split()
            if fields[1].endswith(f":{int(port):04X}") and fields[3] == "0A":
                return True
    return False


def serve(stage, command, port, folder, start=subprocess.Popen, where=ON_HOST):
    """A server on its side (`where`) that is there until stage.stop_servers(), and listens on that port when this returns: it, and
    not only a network program that would forward the port to it. `start` starts one on the host."""
    name = os.path.basename(installed(command[0]))
    with open(os.path.join(folder, "log"), "w+", encoding="utf-8", errors="replace") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
        server = Contained(name, where.server + command, **streams) if where.network else start(command, **streams)
        stage.servers.append(server)
        forwarded = where.network and where.network not in MOVE_PORTS
        deadline = time.monotonic() + PATIENCE
        while not (any(listens(port, pid) for pid in server.servers()) if forwarded else listens(port)):
            if server.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                lines = log.read().splitlines()
                raise Failed(": ".join([f"{name} did not start", *(line[:200] for line in lines[-1:])]), lines)
            time.sleep(0.01)
    return server


def nginx(folder, name, blocks, module="", workers=1):
    """The command of an nginx with these blocks of configuration, in which {place} is a folder of its own."""
    place = os.path.join(folder, name)
    os.makedirs(place, exist_ok=True)
    with open(os.path.join(folder, f"{name}.conf"), "w", encoding="utf-8") as file:
        file.write(f"""{module}
            daemon off; worker_processes {workers}; pid {place}/pid; {"user root;" if os.getuid() == 0 else ""}
            events {{ worker_connections 4096; }} {blocks.format(place=place)}""")
    return ["nginx", "-e", f"{place}/errors", "-c", file.name]


def web_server(folder, ports, address=HOST):
    """The command of an nginx that answers a few bytes on each of these ports: whoever picks one has the same server behind it."""
    listen = " ".join(f"listen {address}:{port} backlog=4096;" for port in ports)
    return nginx(folder, "web", "http {{ access_log off; client_body_temp_path {place}/b; proxy_temp_path {place}/p; "
                 "fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; "
                 "keepalive_requests 100000000; server {{ " + listen + ' location / {{ return 200 "ok"; }} }} }}')


def read_wrk(output):
    """(requests, requests per second, {"p50_ns": ...} if it was called with --latency). Raises Failed."""
    requests = int(re.search(r"(\d+) requests in", output)[1])
    if requests == 0 or "Socket errors" in output or "Non-2xx" in output:
        raise Failed("wrk did not get all answers", output.splitlines())
    latencies = {f"p{percent}_ns": float(value) * NANOSECONDS[unit]
                 for percent, value, unit in re.findall(r"^\s+(50|90|99)%\s+([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)}
    return requests, float(re.search(r"Requests/sec:\s*([\d.]+)", output)[1]), latencies
