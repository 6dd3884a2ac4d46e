"""Keeps a model from ending processes that are not its own.

A filter in the kernel (seccomp) hands every attempt to signal, trace or limit another process to the server, which
allows it for the worker's own descendants and refuses it for all others. It asks the server too before a process is
started (threads are not processes here), so that there is a bound on how many there are. The other side of this is the server's ``python/guard.rs``. What cannot be filtered is said in docs/python-models.md: a model has its user's rights.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import Any, Dict, List, Optional, Tuple

_ALLOW, _ASK, _REFUSE = 0x7FFF0000, 0x7FC00000, 0x00050001
#: "There is no such call": programs then take an older one.
_ABSENT = 0x00050026

#: By machine: what the kernel calls it, and the numbers of its calls.
_MACHINES: Dict[str, Tuple[int, Dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        dict(kill=62, tkill=200, tgkill=234, queue=129, tgqueue=297, prlimit=302, ptrace=101, write=311, fcntl=72, ioctl=16,
             reboot=169, seccomp=317, clone=56, fork=57, vfork=58),
    ),
    "aarch64": (
        0xC00000B7,
        dict(kill=129, tkill=130, tgkill=131, queue=138, tgqueue=240, prlimit=261, ptrace=117, write=271, fcntl=25, ioctl=29,
             reboot=142, seccomp=277, clone=220),
    ),
}
_PIDFD_SEND_SIGNAL, _CLONE3 = 424, 435
_F_SETOWN, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 15, 0x8901, 0x8902
_CLONE_THREAD = 0x10000
_LOAD, _EQUAL, _AT_LEAST, _HAS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _NEW_LISTENER = 38, 1, 8
#: Once the server has a question, no signal but a deadly one ends the call: it would be made twice. Since Linux 5.19.
_WAIT = 32


def install() -> Optional[int]:
    """Filters this process and its descendants. The descriptor at which the kernel asks; ``None`` where it cannot."""
    import ctypes

    machine = _MACHINES.get(os.uname().machine)
    if machine is None or sys.maxsize < 2**32:
        return None
    program = _program(*machine)
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(number) for number in (1, 0, 0, 0))) != 0:
        return None
    number = ctypes.c_long(machine[1]["seccomp"])
    for flags in (_NEW_LISTENER | _WAIT, _NEW_LISTENER):
        descriptor = libc.syscall(number, ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(flags), described)
        if descriptor >= 0:
            return int(descriptor)
    return None


def hold_signals_back() -> None:
    """Lets no signal but a deadly one come while ``os.fork`` waits for the server: it would end the call with EINTR, which
    a fork knows nothing of elsewhere. What else starts programs holds them back itself."""
    import signal
    import threading

    before = threading.local()

    def hold() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=release)


def _program(arch: int, calls: Dict[str, int]) -> bytes:
    lines: List[Any] = []

    def unless(value: int, *then: Any) -> None:
        """The lines `then` where what was loaded is `value`."""
        lines.append((_EQUAL, 0, len(then), value))
        lines.extend(then)

    def argument(place: int) -> Tuple[int, int, int, int]:
        return (_LOAD, 0, 0, _ARGUMENTS + 8 * place)

    def give(verdict: int) -> Tuple[int, int, int, int]:
        return (_RETURN, 0, 0, verdict)

    def asked_if(place: int, *values: int, otherwise: int = _ALLOW, then: int = _ASK) -> List[Tuple[int, int, int, int]]:
        made = [argument(place)]
        for value in values:
            made += [(_EQUAL, 0, 1, value), give(then)]
        return made + [give(otherwise)]

    # Calls of another machine have other numbers, under which all these would be open.
    lines.append((_LOAD, 0, 0, _ARCH))
    lines.append((_EQUAL, 1, 0, arch))
    lines.append(give(_ABSENT))
    lines.append((_LOAD, 0, 0, _NR))
    lines.append((_AT_LEAST, 0, 1, 0x40000000))
    lines.append(give(_ABSENT))
    own = os.getpid()
    for name in ("kill", "tgkill"):
        unless(calls[name], *asked_if(0, own, 0, otherwise=_ASK, then=_ALLOW))
    for name in ("tkill", "queue", "tgqueue"):
        unless(calls[name], give(_ASK))
    unless(calls["prlimit"], *asked_if(0, own, 0, otherwise=_ASK, then=_ALLOW))
    unless(calls["ptrace"], *asked_if(0, 0, otherwise=_ASK, then=_ALLOW))
    unless(calls["write"], give(_ASK))
    for name in ("fork", "vfork"):
        if name in calls:
            unless(calls[name], give(_ASK))
    unless(calls["clone"], argument(0), (_HAS, 0, 1, _CLONE_THREAD), give(_ALLOW), give(_ASK))
    # Its flags are where a filter cannot look.
    unless(_CLONE3, give(_ABSENT))
    unless(_PIDFD_SEND_SIGNAL, give(_ABSENT))
    unless(calls["reboot"], give(_REFUSE))
    owner = asked_if(1, _F_SETOWN)
    unless(calls["fcntl"], argument(1), (_EQUAL, 0, 1, _F_SETOWN_EX), give(_REFUSE), *owner)
    unless(calls["ioctl"], *asked_if(1, _FIOSETOWN, _SIOCSPGRP, then=_REFUSE))
    lines.append(give(_ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in lines)
