"""Connections whose packets vanish, as behind a NAT that has forgotten them."""

from __future__ import annotations

__all__ = ["blackhole"]

import ctypes
import socket
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_DROP: Final = (ctypes.c_ushort * 4)(0x06, 0, 0, 0)
"""One instruction of a packet filter: BPF_RET, of no byte."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def blackhole(*ends: socket.socket) -> None:
    """
    Drop everything that comes for these sockets, before TCP sees it.

    Given both ends of a connection, neither hears of the other again.  It takes
    no privileges, and Linux.
    """
    program = _Program(1, ctypes.addressof(_DROP))
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
