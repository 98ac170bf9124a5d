"""
A configuration, and sockets, from the supervisor to workers that run.

They go through a pair of connected sockets of their own, as what carries messages
carries no descriptors.  The configuration is in a file in memory, so that neither
its size nor a disk matters.  Who is sent something is told so by a message, which
comes when all of it is there.
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
"""Descriptors in one go, of which the kernel takes 253."""


@dataclass(frozen=True)
class Handed:
    """
    What goes over.

    @ivar moved: listeners that have the sockets of another one from now on, by name.
    @ivar opened: how many new sockets a listener has, by name, in the order in which they come.
    """

    loaded: Loaded
    moved: Mapping[str, str]
    opened: Mapping[str, int]


def send(channel: socket.socket, handed: Handed, sockets: Sequence[socket.socket]) -> int:
    """
    Hand a configuration over.

    @param sockets: the new ones.
    @return: how many descriptors have been sent, which L{receive} wants to know.
    @raise OSError: if the worker is gone, or does not take them.
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
    Hand sockets over, and nothing else.

    @raise OSError: if the worker is gone, or does not take them.
    """
    _send(channel, [each.fileno() for each in sockets])


def receive_sockets(channel: socket.socket, count: int) -> list[socket.socket]:
    """
    Take what L{send_sockets} has sent.

    @param count: how many there are.
    @raise WireError: if they are not there.
    """
    return [socket.socket(fileno=each) for each in _receive(channel, count)]


def receive(channel: socket.socket, count: int) -> tuple[Handed, list[socket.socket]]:
    """
    Take what was sent.

    @param count: how many descriptors there are.
    @raise WireError: if they are not there.
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
