"""
Send configurations and sockets from the supervisor to running workers.

They have a socket pair of their own, as the channel for messages carries no descriptors.
The configuration is in a memory file (C{memfd_create}), so that it may have any size and
needs no disk.  A message on the channel announces it when all of it has been sent.
"""

from __future__ import annotations

__all__ = ["Handed", "receive", "receive_sockets", "send", "send_sockets"]

import os
import pickle
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reverseproxy.config.loader import Loaded
from reverseproxy.errors import WireError

_AT_ONCE: Final = 64
"""Descriptors in one message, of which the kernel allows 253."""


@dataclass(frozen=True)
class Handed:
    """
    A configuration for a running worker.

    @ivar moved: names of listeners that take the sockets of another one, and its name.
    @ivar opened: how many new sockets each listener has, by name, in the order of the sockets.
    """

    loaded: Loaded
    moved: Mapping[str, str]
    opened: Mapping[str, int]


def send(channel: socket.socket, handed: Handed, sockets: Sequence[socket.socket]) -> int:
    """
    Send a configuration.

    @param sockets: the new ones.
    @return: how many descriptors were sent, for L{receive}.
    @raise OSError: if the worker has ended, or does not read.
    """
    file = os.memfd_create("configuration", os.MFD_CLOEXEC)
    try:
        with open(file, "wb", closefd=False) as stream:
            pickle.dump(handed, stream)
        descriptors = [file, *(each.fileno() for each in sockets)]
        _send(channel, descriptors)
    finally:
        os.close(file)
    return len(descriptors)


def _send(channel: socket.socket, descriptors: Sequence[int]) -> None:
    for start in range(0, len(descriptors), _AT_ONCE):
        socket.send_fds(channel, [b"-"], descriptors[start : start + _AT_ONCE])


def send_sockets(channel: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """
    Send sockets only.

    @raise OSError: if the worker has ended, or does not read.
    """
    _send(channel, [each.fileno() for each in sockets])


def receive_sockets(channel: socket.socket, count: int) -> list[socket.socket]:
    """
    Receive what L{send_sockets} has sent.

    @param count: how many sockets were sent.
    @raise WireError: if they have not arrived.
    """
    return [socket.socket(fileno=each) for each in _receive(channel, count)]


def receive(channel: socket.socket, count: int) -> tuple[Handed, list[socket.socket]]:
    """
    Receive what L{send} has sent.

    @param count: how many descriptors were sent.
    @raise WireError: if they have not arrived.
    """
    descriptors = _receive(channel, count)
    with open(descriptors[0], "rb") as stream:
        stream.seek(0)
        handed = pickle.load(stream)  # noqa: S301 - from the process that has started us
    assert isinstance(handed, Handed)
    return handed, [socket.socket(fileno=each) for each in descriptors[1:]]


def _receive(channel: socket.socket, count: int) -> list[int]:
    descriptors: list[int] = []
    while len(descriptors) < count:
        try:
            data, more, _, _ = socket.recv_fds(channel, 1, _AT_ONCE)
        except OSError as error:
            raise WireError(f"the supervisor has not handed over what it said: {error}") from None
        if not data:
            raise WireError("the supervisor is gone")
        descriptors += more
    return descriptors
