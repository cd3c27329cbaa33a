# SPDX-License-Identifier: Apache-2.0
"""The programs that shunt is measured beside, found on PATH or where the user says, and the arms that need them."""

import os
import re
import shutil

import places

# As users call them -> the program. An arm that needs one has its name as a word of its own: "shunt+haproxy".
PEERS = {"slirp4netns": "slirp4netns", "pasta": "pasta", "bypass4netns": "bypass4netns", "seccompagent": "seccompagent",
         "haproxy": "haproxy", "nginx": "nginx", "nftables": "nft"}
ALWAYS = ("native", "shunt")
NETWORKS = ("slirp4netns", "pasta")  # which can be below shunt, too
STAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # the PATH of the user on root's stage


def peer_of(arm):
    """The peer that the arm needs; None: nothing but us and the kernel."""
    return next((word for word in re.split(r"[-+ ]", arm) if word in PEERS), None)


def chosen_arms(scenario, against=None, arms=None):
    """Those of the scenario's arms that are wanted, and what they are compared with; `against` and `arms` are lists or None."""
    def wanted(arm):
        if arms is not None:
            return arm in arms
        return against is None or peer_of(arm) is None or peer_of(arm) in against
    chosen = {arm for arm in scenario.arms if wanted(arm)}
    if arms is None:
        chosen |= {other for arm in chosen for other in (scenario.base(arm), scenario.floor(arm)) if other in scenario.arms}
    return [arm for arm in scenario.arms if arm in chosen]


def without_arm(scenario, against):
    """The peers that were asked for and that the scenario has no arm for."""
    return [peer for peer in against or [] if peer in PEERS and peer not in map(peer_of, scenario.arms)]


def names_in(text):
    """Of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_against(text):
    """The names of a comma-separated list. Raises ValueError for one that is unknown."""
    names = names_in(text)
    for name in names:
        if name not in PEERS and name not in ALWAYS:
            raise ValueError(f"there is no peer {name}; there are {', '.join([*ALWAYS, *PEERS])}")
    return names


def read_place(text):
    """("haproxy", "/path/to/it") of NAME=PATH. Raises ValueError."""
    name, _, path = text.partition("=")
    if name not in PEERS or not path:
        raise ValueError(f"{text!r} is not NAME=PATH with a name of {', '.join(PEERS)}")
    if reason := places.why_not_executable(path):
        raise ValueError(reason)
    return name, os.path.abspath(path)


def on_path_only(given):
    """Those that are on the caller's PATH and would not be found on the stage, without those that are given, as read_place()."""
    found = {name: shutil.which(program) for name, program in PEERS.items()
             if name not in dict(given) and not shutil.which(program, path=STAGE_PATH)}
    return [(name, path) for name, path in found.items() if path]


def below_shunt():
    """The networks that shunt itself is to use, as read_place(): as if no peer had been given."""
    return [(name, path) for name, path in on_path_only([]) if name in NETWORKS]


def laid_out(given, directory):
    """{where the stage looks first: where the given programs are}, of NAME=PATH."""
    return {os.path.join(directory, PEERS[name]): path for name, path in given}
