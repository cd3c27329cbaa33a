# SPDX-License-Identifier: Apache-2.0
"""Looks at processes of others by /proc."""


def processes_below(first):
    """{pid: its name} of this process and all that descend from it at this moment, from above to below."""
    found, ahead = {}, [first]
    while ahead:
        pid = ahead.pop()
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                found[pid] = file.read().strip()
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                ahead += map(int, file.read().split())
        except OSError:
            pass  # it has ended
    return found
