# SPDX-License-Identifier: Apache-2.0
"""Seccomp filters of the calling process itself: with a listener, as container runtimes make it before they hand it over,
or without, to be an older kernel for whoever is executed."""

import ctypes
import struct

LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
USER_NOTIF, ALLOW, FAIL = 0x7FC00000, 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS = 38
SYS_SECCOMP, SET_MODE_FILTER, NEW_LISTENER = 317, 1, 8


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def make_listener(*calls):
    """Of a filter that reports these calls, by number, and allows everything else. Negative: the kernel gives none."""
    rules = [(LOAD_NUMBER, 0, 0, 0)]
    rules += [(JUMP_IF_EQUAL, len(calls) - i, 0, call) for i, call in enumerate(calls)]
    rules += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, USER_NOTIF)]
    return install(rules, NEW_LISTENER)


def refuse(call, argument, value, error):
    """From now on this call, by number, fails with `error` where the argument of this index is `value`."""
    assert install([(LOAD_NUMBER, 0, 0, 0), (JUMP_IF_EQUAL, 0, 3, call),
                    (LOAD_NUMBER, 0, 0, 16 + 8 * argument), (JUMP_IF_EQUAL, 0, 1, value),
                    (RETURN, 0, 0, FAIL | error), (RETURN, 0, 0, ALLOW)], 0) == 0


def install(rules, flags):
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return libc.syscall(SYS_SECCOMP, SET_MODE_FILTER, flags, ctypes.byref(Program(len(rules), ctypes.addressof(code))))
