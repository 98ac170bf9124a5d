"""
Listening sockets from the process that this one takes over, or from systemd.

They are in L{INHERITED} until a listener of the configuration takes them
(L{reverseproxy.listener.sockets.open_sockets}).
"""

from __future__ import annotations

__all__ = ["AGENTS_PORT", "INHERITED", "ListenerSockets", "InheritedSockets", "name_of_port"]

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from reverseproxy.addresses import is_unix, split_host_port
from reverseproxy.config.models import ListenerConfig


@dataclass(frozen=True, slots=True)
class ListenerSockets:
    """
    The listening sockets of one listener of another process.

    @ivar name: the listener's name.
    @ivar address: its address in the other process's configuration; empty for a socket of a
        service manager.
    @ivar sockets: one, or one for each worker.
    """

    name: str
    address: str
    sockets: tuple[socket.socket, ...]


class InheritedSockets:
    """
    Inherited sockets and routes that are not in use yet.

    @ivar keeps: whether another process may take over from this one, so that its ports must
        keep sockets that can be passed on.
    @ivar files: paths of Unix sockets that a service manager has bound, and owns.
    @ivar claims: the routes that agents had brought to the other process, as JSON, until they
        are restored here.
    """

    def __init__(self) -> None:
        self.keeps = False
        self.claims: list[dict[str, Any]] = []
        self.files: set[str] = set()
        self._bequests: list[ListenerSockets] = []

    def add(self, bequests: Iterable[ListenerSockets]) -> None:
        """Keep sockets until a listener takes them."""
        self._bequests += bequests

    def take(self, config: ListenerConfig) -> list[socket.socket]:
        """
        Take the sockets for a listener: those with its name and address, or else with its address.

        @return: empty if there are none.
        """
        for suits in (_of_name, _of_address):
            for bequest in self._bequests:
                if suits(bequest, config):
                    self._bequests.remove(bequest)
                    first = bequest.sockets[0]
                    if first.family == socket.AF_UNIX and not bequest.address:
                        self.files.add(first.getsockname())
                    return list(bequest.sockets)
        return []

    def pass_on(self, address: str) -> str:
        """Return the address to pass on with a socket: empty if a service manager has bound it."""
        return "" if address.removeprefix("unix:") in self.files else address

    def close(self, keep: str = "") -> list[str]:
        """
        Close sockets that no listener has taken.

        @param keep: a prefix of names of listeners whose sockets stay; empty for none.
        @return: the names of the listeners whose sockets are closed.
        """
        kept = [each for each in self._bequests if keep and each.name.startswith(keep)]
        left, self._bequests = [each for each in self._bequests if each not in kept], kept
        for bequest in left:
            for each in bequest.sockets:
                each.close()
        return [bequest.name for bequest in left]


AGENTS_PORT: Final = "agents' port"
"""The prefix of the names of listeners for ports that agents bring."""


def name_of_port(port: int) -> str:
    """Return the name of the listener for a port that an agent has brought."""
    return f"{AGENTS_PORT} {port}"


INHERITED: Final = InheritedSockets()
"""The inherited sockets of this process."""


def _of_name(bequest: ListenerSockets, config: ListenerConfig) -> bool:
    # A service manager knows names only, and no addresses.
    return bequest.name == config.name and bequest.address in ("", config.address)


def _of_address(bequest: ListenerSockets, config: ListenerConfig) -> bool:
    first = bequest.sockets[0]
    name = first.getsockname()
    if first.family == socket.AF_UNIX:
        return is_unix(config.address) and name == config.address.removeprefix("unix:")
    if config.network == "unix" or is_unix(config.address):
        return False
    host, number = split_host_port(config.address)
    if not number or name[1] != number:
        return False
    if not host:
        return name[0] in ("::", "0.0.0.0")  # noqa: S104 - as a comparison
    with suppress(ValueError):
        return ip_address(host.strip("[]")) == ip_address(name[0])
    with suppress(OSError):
        return any(found[4][0] == name[0] for found in socket.getaddrinfo(host, number))
    return False
