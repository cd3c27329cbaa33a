# SPDX-License-Identifier: Apache-2.0
"""`shunt bench probe`: what this machine can do, and what will disturb a measurement on it."""

import glob
import json
import os
import shutil
import subprocess

import places

NOT_KNOWN = "not known"
UNHURRIED_CPUS = 8  # more share the time that so many have
SECONDS_FOR_THE_REST = 60  # of probe_machine: features, clocks, wake-ups


def first_line(path, prefix=""):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.strip() for line in file if line.startswith(prefix)), "")
    except OSError:
        return ""


def virtualization():
    """The kind of virtual machine; "none"; "yes" where only the CPU says so."""
    if shutil.which("systemd-detect-virt"):
        said = subprocess.run(["systemd-detect-virt", "--vm"], capture_output=True, text=True, check=False).stdout.strip()
        if said not in ("", "none"):
            return said
    return "yes" if " hypervisor" in first_line("/proc/cpuinfo", "flags") else "none"


def idle_states():
    """[{"name", "exit_us"}] of the first CPU."""
    states = []
    for path in sorted(glob.glob("/sys/devices/system/cpu/cpu0/cpuidle/state*")):
        states.append({"name": first_line(os.path.join(path, "name")),
                       "exit_us": int(first_line(os.path.join(path, "latency")) or 0)})
    return states


def quota_of_cgroup():
    """What the control group may use, in CPUs; None: no limit that we see."""
    group = first_line("/proc/self/cgroup", "0::").removeprefix("0::")
    words = first_line(f"/sys/fs/cgroup{group}/cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0] != "max" else None


def stolen_seconds():
    words = first_line("/proc/stat", "cpu ").split()
    return int(words[8]) / os.sysconf("SC_CLK_TCK") if len(words) > 8 else 0


def longest(cpus, spin_ms):
    """Seconds that probe_machine may take: the CPUs spin one after the other, up to eight of them for as long as that, and longer
    where something else runs."""
    return SECONDS_FOR_THE_REST + 2 * min(len(cpus), UNHURRIED_CPUS) * spin_ms / 1000


def probe(programs, spin_ms=200):
    """Everything, as a dict that JSON can hold. Raises places.Missing without probe_machine."""
    load, stolen = os.getloadavg()[0], stolen_seconds()
    timed = subprocess.run([places.program(programs, "probe_machine"), "--spin-ms", str(spin_ms)], capture_output=True,
                           text=True, check=True, timeout=longest(os.sched_getaffinity(0), spin_ms))
    smt = first_line("/sys/devices/system/cpu/smt/active")
    found = {"kernel": os.uname().release,
             "cpu": first_line("/proc/cpuinfo", "model name").partition(":")[2].strip() or os.uname().machine,
             "cpus": len(os.sched_getaffinity(0)), "cpus_of_machine": os.cpu_count(), "load": round(load, 2),
             "threads_share_cores": None if not smt else smt == "1", "virtualization": virtualization(),
             "clock_source": first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource") or NOT_KNOWN,
             "governor": first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "none",
             "turbo_off": first_line("/sys/devices/system/cpu/intel_pstate/no_turbo") == "1",
             "idle_driver": first_line("/sys/devices/system/cpu/cpuidle/current_driver") or "none",
             "idle_states": idle_states(), "cgroup_cpus": quota_of_cgroup()}
    return {**found, **json.loads(timed.stdout), "stolen_ms": round((stolen_seconds() - stolen) * 1000, 1)}


def lost_share(spin):
    return spin["lost_us"] / (spin["seconds"] * 1e6)


def wake_costs(found):
    """(on the same CPU, the dearest to another one or None), nanoseconds."""
    same = [wake["ns"] for wake in found["wake_ups"] if wake["from"] == wake["to"]]
    cross = [wake["ns"] for wake in found["wake_ups"] if wake["from"] != wake["to"]]
    return (same or [None])[0], max(cross, default=None)


def warnings(found):
    """What will disturb the figures, each with what to do about it."""
    texts = []
    if found["load"] > 0.3 * found["cpus"]:
        texts.append(f"the machine is busy (load {found['load']:.2f} on {found['cpus']} CPUs): end what else runs, or ask for "
                     "more runs")
    if found["virtualization"] != "none":
        texts.append("this is a virtual machine: its host takes CPUs away at any moment; high percentiles are the host's")
    if found["clock_source"] not in ("tsc", "kvm-clock", "arch_sys_counter", NOT_KNOWN) or found["clock"]["timestamp_ns"] > 200:
        texts.append(f"a timestamp takes {found['clock']['timestamp_ns']:.0f} ns (clock source {found['clock_source']}): "
                     "short operations drown in it")
    if found["governor"] not in ("none", "performance"):
        texts.append(f"the CPUs change their speed (governor {found['governor']}): cpupower frequency-set -g performance")
    deep = [state["name"] for state in found["idle_states"] if state["exit_us"] > 20]
    if deep:
        texts.append(f"idle CPUs sleep deeply ({', '.join(deep)}): a wake-up costs what it takes to leave that; "
                     "cpupower idle-set -D 20 switches it off")
    for spin in found["spin"]:
        if lost_share(spin) > 0.01 or spin["longest_us"] > 1000:
            texts.append(f"CPU {spin['cpu']} lost {100 * lost_share(spin):.1f}% of a spin loop, up to "
                         f"{spin['longest_us']:,.0f} us at once: percentiles beyond show that, not what is measured")
    same, cross = wake_costs(found)
    if same and cross and cross > 4 * same:
        texts.append(f"a wake-up on another CPU costs {cross / same:.0f} times one on the same: where threads happen to run "
                     "decides about latencies; compare with the native arm of the same run only")
    if found["cpus"] < 2:
        texts.append("there is one CPU: caller, server and engine take turns on it")
    if found["cgroup_cpus"]:
        texts.append(f"the control group may use {found['cgroup_cpus']:g} CPUs: it is stopped whenever it has")
    missing = [name for name, works in found["features"].items() if not works]
    if missing:
        texts.append(f"this kernel, or this user, lacks: {', '.join(missing)}")
    return texts


def lost_lines(spins):
    """Each CPU; of many those that have lost most."""
    worst = sorted(spins, key=lost_share, reverse=True)[:UNHURRIED_CPUS]
    rows = [(f"lost on CPU {spin['cpu']}", f"{100 * lost_share(spin):.2f}% of {1000 * spin['seconds']:.0f} ms in {spin['gaps']} "
             f"gaps, the longest {spin['longest_us']:,.0f} us") for spin in spins if spin in worst]
    others = [spin for spin in spins if spin not in worst]
    if others:
        rows.append((f"lost on {len(others)} others", f"{100 * max(map(lost_share, others)):.2f}% at most, the longest gap "
                     f"{max(spin['longest_us'] for spin in others):,.0f} us"))
    return rows


def lines(found):
    """[(name, text)] for people."""
    clock, yes = found["clock"], {True: "yes", False: "NO", None: NOT_KNOWN}
    same, cross = wake_costs(found)
    states = ", ".join(f"{state['name']} ({state['exit_us']} us to leave)" for state in found["idle_states"]) or "none are told"
    rows = [("kernel", found["kernel"]), ("CPU", found["cpu"]),
            ("CPUs", f"{found['cpus']} of {found['cpus_of_machine']}; two threads on a core: "
             f"{yes[found['threads_share_cores']]}"),
            ("virtualization", found["virtualization"]), ("load", f"{found['load']:.2f}"), ("governor", found["governor"]),
            ("idle states", f"{states}; driver {found['idle_driver']}"),
            ("clock", f"{found['clock_source']}, resolution {clock['resolution_ns']} ns, a timestamp takes "
             f"{clock['timestamp_ns']:.1f} ns, a measurement of nothing {clock['empty_sample_ns']} ns"),
            ("timer", f"{1e9 / clock['tick_ns']:.0f} Hz; a sleep of 50 us ends {clock['sleep_late_ns'] / 1000:.1f} us late"),
            ("wake-up", f"{same / 1000:.1f} us on the same CPU" + (f", {cross / 1000:.1f} us on another" if cross else ""))]
    rows += lost_lines(found["spin"])
    rows.append(("stolen", f"{found['stolen_ms']:g} ms by the hypervisor meanwhile"))
    return rows + [(name.replace("_", " "), yes[works]) for name, works in found["features"].items()]


def main(program, arguments, programs):
    parser = places.Parser(prog=f"{program} probe", description="Tries and times what this machine can do, and warns of what "
                           "will disturb a measurement. Exit status 0 with warnings, too.",
                           examples=[("", "for people"), ("--json", "the same for programs")])
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--spin-ms", type=int, default=1000, metavar="N", help="how long each CPU is watched (default 1000); more "
                        "than eight share the time of eight")
    options = parser.parse_args(arguments)
    if not 1 <= options.spin_ms <= 60000:
        parser.error("--spin-ms must be 1 to 60000")
    found = probe(programs, options.spin_ms)
    if options.json:
        parser.answer(json.dumps({**found, "warnings": warnings(found)}, indent=1))
        return 0
    width = max(len(name) for name, _ in lines(found))
    parser.answer("\n".join([f"{name:{width}}  {text}" for name, text in lines(found)] +
                            [f"warning: {text}" for text in warnings(found)]))
    return 0
